"""How loaded each worker is: a table in memory that all workers share, so that new connections go where there is room.

Each worker writes a row of its own, and reads all. Nobody waits for anybody: a row that is half written, or junk,
counts for nothing. Where the connections go is decided by balance.py. Read next: balance.py, and server/accepting.py,
which asks it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import zlib
from collections.abc import Callable
from time import monotonic_ns
from typing import NamedTuple

from etherws.kernel import sealed_memory

#: Workers that can have a row: 64 are the most that --workers takes, and twice as many run while gunicorn reloads.
ROWS = 128

#: Nanoseconds after which a row that was not written again does not count. A worker writes it four times a second; one
#: that has not come to that for a second is not waited for.
STALE = 1_000_000_000

#: PID, tunnels, connections that wait, whether it takes no more, when it was written (ns, CLOCK_MONOTONIC).
_ROW = struct.Struct("=IIIIQ")
#: The CRC-32 of the row before it. Both fill 32 bytes, so that no row crosses a cache line.
_CHECK = struct.Struct("=II")
_ROW_SIZE = _ROW.size + _CHECK.size

#: Bytes of the table.
SIZE = ROWS * _ROW_SIZE

#: A reader that meets a row while it is written looks again, so many times.
_LOOKS = 3


class Row(NamedTuple):
    """What one worker has said of itself."""

    pid: int
    #: Clients that have a port.
    tunnels: int
    #: Connections that are not tunnels yet.
    waiting: int
    #: Whether it takes no more connections now: its waiting list is full, or it has no descriptors left.
    full: int
    #: When it said so: nanoseconds of the monotonic clock.
    written: int

    @property
    def load(self) -> int:
        """Tunnels, and connections that may become tunnels."""
        return self.tunnels + self.waiting


def create() -> int:
    """A descriptor of an empty table, close-on-exec. Raises OSError."""
    return sealed_memory.make("etherws-loads", SIZE)


class LoadTable:
    """The table, in one process."""

    def __init__(
        self, fd: int, *, clock: Callable[[], int] = monotonic_ns, runs: Callable[[int], bool] | None = None
    ) -> None:
        """`fd` is of create(), and is closed by close(). `clock` gives nanoseconds, `runs` says whether a process of
        this PID exists. Raises OSError, also if this is no table."""
        self.fd = fd
        self._clock, self._runs = clock, runs or _runs
        if os.fstat(fd).st_size != SIZE:
            raise OSError(f"a table of loads has {SIZE} bytes")
        self._memory = mmap.mmap(fd, SIZE)
        self._own: int | None = None
        self._pid = os.getpid()

    def claim(self) -> bool:
        """Have a row of this process, unless it has one. False if all are taken; then its load is not known to others.

        The row goes with the process, whichever way that ends: it is locked by fcntl(2).
        """
        for number in range(ROWS) if self._own is None else ():
            try:
                fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                continue
            self._own = number
            break
        return self._own is not None

    def write(self, tunnels: int, waiting: int, *, full: bool = False) -> None:
        """Say how loaded this process is. Without a row this does nothing."""
        if self._own is not None:
            row = _ROW.pack(self._pid, tunnels, waiting, full, self._clock())
            self._memory[self._at(self._own)] = row + _CHECK.pack(zlib.crc32(row), 0)

    def others(self) -> list[Row]:
        """The rows of other processes that run, and have written a moment ago."""
        now = self._clock()
        return [
            row
            for number in range(ROWS)
            if number != self._own
            and (row := self._read(number))
            and row.pid != self._pid
            and 0 <= now - row.written <= STALE
            and self._runs(row.pid)
        ]

    def of(self, pid: int) -> Row | None:
        """What a process has written last, however long ago; None if it has written nothing."""
        rows = [row for number in range(ROWS) if (row := self._read(number)) and row.pid == pid]
        return max(rows, key=lambda row: row.written, default=None)

    def close(self) -> None:
        """Give the row and the descriptor up."""
        if self._own is not None:
            self._memory[self._at(self._own)] = bytes(_ROW_SIZE)
            self._own = None
        self._memory.close()
        os.close(self.fd)

    def _read(self, number: int) -> Row | None:
        """A row; None if nobody has written it, or it cannot be read."""
        for _ in range(_LOOKS):
            data = self._memory[self._at(number)]
            if not any(data):
                return None
            if _CHECK.unpack_from(data, _ROW.size)[0] == zlib.crc32(data[: _ROW.size]):
                return Row(*_ROW.unpack_from(data))
        return None

    @staticmethod
    def _at(number: int) -> slice:
        return slice(number * _ROW_SIZE, (number + 1) * _ROW_SIZE)


def _runs(pid: int) -> bool:
    """Whether a process of this PID exists."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        # It is another user's.
        return True
    return True
