"""The turn of low-priority work, held by a test while others wait for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

from etherws.tunnel import scheduling
from tests.lab.hosts import PATIENCE


@contextlib.contextmanager
def anothers_turn(source: str = "other") -> Iterator[None]:
    """In the block it is the turn of `source`, however long that takes: on a busy machine the block could last longer
    than one may, and the turn would pass on."""
    with mock.patch.object(scheduling, "BLOCK_MAX", 2 * PATIENCE), scheduling.low_priority.turn(source):
        yield
