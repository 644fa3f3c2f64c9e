"""How long to wait after so many bytes, to keep to a rate.

Pure: knows sizes and times only; receiver.py does the waiting. docs/policy.rst says why the kernel cannot do it.
"""

from __future__ import annotations

#: Seconds of the rate that may come at once after a pause. As much is made up for after a wait that was too long.
CREDIT = 0.01


class Pacer:
    """A token bucket that may have a debt: bytes pass at once, and the wait for them comes afterwards.

    Several connections may share one. Each waits for the debt of all before it lets more bytes pass.
    """

    def __init__(self, rate: int) -> None:
        #: In bits per second. It may be changed.
        self.rate = rate
        #: When the bytes so far have been waited for, by the clock of wait().
        self.paid = 0.0

    def wait(self, size: int, now: float) -> float:
        """The seconds to wait after `size` bytes, which passed at `now` (seconds of a monotonic clock)."""
        self.paid = max(self.paid, now - CREDIT) + size * 8 / self.rate
        return max(0.0, self.paid - now)
