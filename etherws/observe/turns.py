"""A walk over many sessions that keeps nobody waiting: it pauses each time it has run for a millisecond.

What it pauses is its own greenlet alone. Read next: stream.py, which walks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import TypeVar

import gevent

#: Seconds for which a walk may go on before all who are ready get their turn. A frame waits this much longer at most.
TURN_SECONDS = 0.001

#: Seconds of a pause. Any time but 0 has the event loop poll: gevent.sleep(0) would run only greenlets that are due
#: already, and frames that have come would wait.
PAUSE_SECONDS = 1e-6

T = TypeVar("T")


def pause() -> None:
    """Let the event loop poll once, so that all who are ready go on."""
    gevent.sleep(PAUSE_SECONDS)


def in_turns(
    items: Iterable[T], *, clock: Callable[[], float] = monotonic, wait: Callable[[], None] = pause
) -> Iterator[T]:
    """Yield each of the items, and wait() between two of them whenever the time since the last wait, what the caller
    did with them included, is over TURN_SECONDS."""
    began = clock()
    for item in items:
        yield item
        if clock() - began >= TURN_SECONDS:
            wait()
            began = clock()
