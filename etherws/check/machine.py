"""This machine: can it carry a tunnel?

Read next: findings.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from etherws.check.findings import Finding


def machine() -> Iterator[Finding]:
    """What was found on this machine."""
    yield from ()
