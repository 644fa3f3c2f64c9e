"""The table of refusals that ``--refusals FILE`` asks for."""

from __future__ import annotations

from collections.abc import Callable

Tell = Callable[[str, str, str, str], None]
