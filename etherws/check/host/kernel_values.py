"""Small values that the kernel and programs show in files: one line, or nothing if there is no such file.

Each path is given by the caller. What a value means is not decided here.
"""

from __future__ import annotations

from pathlib import Path

from etherws.errors import printable
from etherws.small_files import read_file

#: Where the kernel's settings are (sysctl).
SYSCTL = Path("/proc/sys")

#: Bytes of such a file that are read: a kernel's configuration has 300,000.
SIZE = 1 << 20


def text(path: Path) -> str:
    """What the file says; empty if there is none, or if this process may not read it."""
    try:
        return read_file(path, SIZE).decode(errors="replace")
    except OSError:
        return ""


def line(path: Path) -> str:
    """The first line of the file, fit to be printed."""
    return printable(text(path).partition("\n")[0].strip())


def number(path: Path) -> int | None:
    """The number in the file; None if there is none."""
    try:
        return int(line(path))
    except ValueError:
        return None
