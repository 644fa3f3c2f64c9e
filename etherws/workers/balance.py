"""Where the next connection goes: how many a worker takes now, and when it leaves them to one that has fewer.

Pure: it counts, and knows no socket. The waiting is done in server/accepting.py, which has one of these if there are
other workers. Read next: load_table.py.
"""

from __future__ import annotations

from collections.abc import Callable

from etherws.workers.load_table import LoadTable

#: By how many connections a worker may be ahead of the least loaded one and still take the next. Without it two equal
#: workers would wait for each other's rows at each connection.
SLACK = 1

#: Seconds between two lines of a worker's row: a quarter of what makes it stale.
BEAT = 0.25

#: For a worker without others: no limit.
ALL = 1 << 30


class Balance:
    """A worker's view of the others."""

    def __init__(self, table: LoadTable, tunnels: Callable[[], int], waiting: Callable[[], int]) -> None:
        """`tunnels` and `waiting` give how many clients this worker has, and how many connections that are none yet."""
        self._table, self._tunnels, self._waiting = table, tunnels, waiting
        self._full = False
        table.claim()
        self.publish()

    def publish(self, more: int = 0) -> None:
        """Tell the others how loaded this worker is. `more` connections were accepted, and are not counted yet."""
        self._table.write(self._tunnels(), self._waiting() + more, full=self._full)

    def keep_publishing(self, sleep: Callable[[float], object]) -> None:
        """Never returns; `sleep` waits for so many seconds."""
        while True:
            sleep(BEAT)
            self.publish()

    def become_full(self, full: bool) -> None:
        """Whether this worker can take no more connections now. The others do not leave any to it meanwhile."""
        if full != self._full:
            self._full = full
            self.publish()

    def look(self) -> tuple[int, int]:
        """How many connections this worker should take now, 0 if another one should take the next; and how many the
        others have: a number that changes while they take some."""
        others = [row for row in self._table.others() if not row.full]
        if not others:
            return ALL, 0
        least = min(row.load for row in others)
        return max(0, least + SLACK + 1 - self._tunnels() - self._waiting()), sum(row.load for row in others)
