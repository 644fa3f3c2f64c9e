"""How long the client waits before its next attempt. Pure: it does not wait itself. Used by reconnect.py."""

from __future__ import annotations

import random
from collections.abc import Callable

from etherws.close_codes import CloseCode
from etherws.settings import Retry

#: An attempt comes after this part of the wait, chosen at random, up to the whole of it. Without that, all clients of a
#: server that restarts would come back in the same instant.
JITTER_MIN = 0.5

#: Seconds after which a session counts as stable: the next attempt then starts with the shortest wait again.
STABLE_SESSION = 10.0

#: A server that restarts (1012) expects us at once: its socket takes connections while it starts. Seconds in which 200
#: clients come; and how long the session must have lasted, or the server would have us come again without end.
RESTART_WAIT, RESTART_SESSION = 0.1, 2.0

#: Seconds before each of the first attempts after a stable session whose connection ended without a Close, or that the
#: server has ended because it stops (1001); and how many these are. Most likely something starts it again, which takes
#: a second, and the client is to notice soon after that.
LOST_WAIT, LOST_ATTEMPTS = 0.3, 5


def _jitter() -> float:
    return random.uniform(JITTER_MIN, 1.0)


class Backoff:
    """Waits that double with each attempt, from `retry.first_wait` to `retry.longest_wait`, in seconds."""

    def __init__(self, retry: Retry, jitter: Callable[[], float] = _jitter) -> None:
        """`jitter` returns the factor for one wait."""
        self._retry, self._jitter = retry, jitter
        self._wait = retry.first_wait
        # The next waits, if they are shorter than the usual ones; the next one is the last of these.
        self._short: list[float] = []

    def session_ended(self, code: int | None, lasted: float) -> None:
        """A session has ended after `lasted` seconds, by a Close of this code, None if there was none."""
        self._short = []
        if lasted > STABLE_SESSION:
            self.reset()
            if code in (None, CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART):
                self._short = [LOST_WAIT] * LOST_ATTEMPTS
        if code == CloseCode.SERVICE_RESTART and lasted > RESTART_SESSION:
            self.reset()
            self._short.append(RESTART_WAIT)

    def next(self, extra: float = 0.0) -> float:
        """The seconds to wait now: the current wait with jitter, plus `extra`. The next wait is twice as long, unless
        this is a short one for the end of a session."""
        if self._short:
            return self._jitter() * min(self._short.pop(), self._wait) + extra
        wait = self._jitter() * self._wait + extra
        self._wait = min(2 * self._wait, self._retry.longest_wait)
        return wait

    def reset(self) -> None:
        """Start with the shortest wait again."""
        self._wait = self._retry.first_wait
