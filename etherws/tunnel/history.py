"""The last ten minutes of a session, for the charts of the live page: a few numbers for each five seconds.

Pure. sampling.py says when a row is added. A session that has just begun needs no memory for it; after ten minutes it
needs 2 kB, since an array keeps floats of four bytes.
"""

from __future__ import annotations

import math
from array import array

from etherws.counters import Values

#: Seconds between two rows, and rows that are kept: ten minutes.
STEP, ROWS = 5.0, 120

#: What a row has, beside what was dropped: bits per second that were sent and received, the round trip, and the longest
#: wait in the backlog, both in seconds.
COLUMNS = ("sent", "received", "round_trip", "queue_delay")

_WIDTH = len(COLUMNS)


class History:
    """A ring of rows. A value that is not known is NaN in it, and None outside."""

    __slots__ = ("_count", "_drops", "_end", "_rows")

    def __init__(self) -> None:
        self._rows = array("f")
        # How many rows were added, and how many frames were dropped in each in which there were any. Most have none.
        self._count = 0
        self._drops: dict[int, int] = {}
        self._end = 0.0

    def add(
        self, now: float, sent: float, received: float, round_trip: float | None, queue_delay: float, drops: int
    ) -> None:
        """Add a row at `now`, in seconds since 1970; above ROWS it replaces the oldest. `drops` are frames."""
        row = array("f", (sent, received, math.nan if round_trip is None else round_trip, queue_delay))
        at = self._count % ROWS * _WIDTH
        self._rows[at : at + _WIDTH] = row
        if drops:
            self._drops[self._count] = drops
        self._drops.pop(self._count - ROWS, None)
        self._count += 1
        self._end = now

    def values(self) -> Values:
        """For JSON: "step" (seconds between two rows), "end" (when the last one was added), and lists of the same
        length, the oldest value first: COLUMNS, and "drops"."""
        begin = self._count % ROWS * _WIDTH if self._count > ROWS else 0
        rows = self._rows[begin:] + self._rows[:begin]
        found: Values = {"step": STEP, "end": self._end}
        for at, name in enumerate(COLUMNS):
            found[name] = [None if math.isnan(value) else _short(value) for value in rows[at::_WIDTH]]
        numbers = range(max(0, self._count - ROWS), self._count)
        return {**found, "drops": [self._drops.get(number, 0) for number in numbers]}


def _short(value: float) -> float:
    """The value with as many digits as a float of four bytes has: 0.012, not 0.012000000104308128."""
    return float(f"{value:.6g}")
