"""A look at something that takes the kernel or this process long, and that many may want to see: one for all of them.

Serves status alone. Read next: bridge_tables.py, rule_counts.py, which are such looks.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

from gevent.lock import BoundedSemaphore

#: What was seen is used for so many times as long as the look took, at least: so looks take a twentieth of the time.
FRESH_TIMES = 20.0

T = TypeVar("T")


class SharedLook(Generic[T]):
    """What the last look has seen."""

    def __init__(self, fresh: float, clock: Callable[[], float] = monotonic) -> None:
        """What was seen is used for `fresh` seconds, or longer: see FRESH_TIMES."""
        self._fresh, self._clock = fresh, clock
        self._looking = BoundedSemaphore(1)
        self._until = 0.0
        self._seen: T | None = None

    def get(self, look: Callable[[], T]) -> T:
        """What `look` has returned the last time, or returns now. Blocks this greenlet if another one looks just now.
        Raises what `look` raises."""
        with self._looking:
            began = self._clock()
            if self._seen is None or began >= self._until:
                self._seen = look()
                now = self._clock()
                self._until = now + max(self._fresh, FRESH_TIMES * (now - began))
            return self._seen
