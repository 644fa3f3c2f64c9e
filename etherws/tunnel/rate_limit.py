"""How long to wait after so many bytes, so as to keep to a rate. Knows time and sizes only; session.py waits."""

from __future__ import annotations

#: Seconds of the rate that may come at once after a pause, and that a wait that was too long is made up for.
CREDIT = 0.01


class Pacer:
    """A token bucket that may go into debt: what has come is let through, and the wait for it is afterwards."""

    def __init__(self, rate: int) -> None:
        """`rate` is in bits per second."""
        self._seconds = 8 / rate
        self._paid = 0.0

    def wait(self, size: int, now: float) -> float:
        """The seconds to wait after `size` bytes that were let through at `now` (seconds of a monotonic clock)."""
        self._paid = max(self._paid, now - CREDIT) + size * self._seconds
        return max(0.0, self._paid - now)
