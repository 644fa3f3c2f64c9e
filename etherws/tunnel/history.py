"""The last ten minutes of a session, for the charts of the live page: four numbers for each five seconds.

Pure. sampling.py says when a row is added. A session that has just begun needs no memory for it; after ten minutes it
needs 2 kB, since an array keeps floats of four bytes.
"""

from __future__ import annotations

import math
from array import array

from etherws.counters import Values

#: Seconds between two rows, and rows that are kept: ten minutes.
INTERVAL, ROWS = 5.0, 120

#: What a row has: bits per second that were sent and received, the round trip, and the longest wait in the backlog,
#: both in seconds.
COLUMNS = ("sent", "received", "round_trip", "queue_delay")


class History:
    """A ring of rows. A value that is not known is NaN in it, and None outside."""

    __slots__ = ("_next", "_rows")

    def __init__(self) -> None:
        self._rows = array("f")
        # Where the next row goes once the ring is full.
        self._next = 0

    def add(self, sent: float, received: float, round_trip: float | None, queue_delay: float) -> None:
        """Add a row; above ROWS it replaces the oldest."""
        row = array("f", (sent, received, math.nan if round_trip is None else round_trip, queue_delay))
        if len(self._rows) < ROWS * len(COLUMNS):
            self._rows += row
        else:
            self._rows[self._next : self._next + len(COLUMNS)] = row
            self._next = (self._next + len(COLUMNS)) % len(self._rows)

    def values(self) -> Values:
        """A list for each of COLUMNS, the oldest value first; and in "interval" the seconds between two of them."""
        rows = self._rows[self._next :] + self._rows[: self._next]
        found: Values = {"interval": INTERVAL}
        for at, name in enumerate(COLUMNS):
            found[name] = [None if math.isnan(value) else _short(value) for value in rows[at :: len(COLUMNS)]]
        return found


def _short(value: float) -> float:
    """The value with as many digits as a float of four bytes has: 0.012, not 0.012000000104308128."""
    return float(f"{value:.6g}")
