"""How long the client waits before its next attempt. Pure: it does not wait itself. Used by reconnect.py."""

from __future__ import annotations

import random
from collections.abc import Callable

from etherws.settings import Retry

#: An attempt comes after this part of the wait, chosen at random, up to the whole of it. Without that, all clients of a
#: server that restarts would come back in the same instant.
JITTER_MIN = 0.5


def _jitter() -> float:
    return random.uniform(JITTER_MIN, 1.0)


class Backoff:
    """Waits that double with each attempt, from `retry.first_wait` to `retry.longest_wait`, in seconds."""

    def __init__(self, retry: Retry, jitter: Callable[[], float] = _jitter) -> None:
        """`jitter` returns the factor for one wait."""
        self._retry, self._jitter = retry, jitter
        self._wait = retry.first_wait

    def next(self, extra: float = 0.0) -> float:
        """The seconds to wait now: the current wait with jitter, plus `extra`. The next wait is twice as long."""
        wait = self._jitter() * self._wait + extra
        self._wait = min(2 * self._wait, self._retry.longest_wait)
        return wait

    def reset(self) -> None:
        """Start with the shortest wait again."""
        self._wait = self._retry.first_wait
