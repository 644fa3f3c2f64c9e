"""Read a file that is small and regular, and no other: secrets, certificates, rules.

These files are read again while connections run. A FIFO or a device would hold up all of them until somebody writes to
it, and /dev/zero has no end. access/, client/ and kernel/ use this.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Container

from etherws.file_names import to_read


def read_file(path: str | os.PathLike[str], size: int, *, owners: Container[int] | None = None) -> bytes:
    """The first `size` bytes of a file. Never waits for anything but a disk.

    Raises OSError, also for what is not a regular file, or belongs to none of `owners`, which are numbers of users;
    `strerror` says why.
    """
    # With O_NONBLOCK a FIFO opens at once, so that it can be told from a file; O_NOCTTY is for a terminal.
    file = os.open(to_read(os.fspath(path)), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if owners is not None and found.st_uid not in owners:
            raise OSError(errno.EPERM, f"it belongs to another user, {found.st_uid}", str(path))
        with open(file, "rb", closefd=False) as opened:
            return opened.read(size)
    finally:
        os.close(file)


def cannot_read(path: str) -> str:
    """Why this process cannot open the file, or the folder, of this name for want of a right; empty if it can."""
    try:
        os.close(os.open(to_read(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
    except PermissionError as exc:
        return exc.strerror or str(exc)
    except OSError:
        pass
    return ""


def is_open_to_all(path: str | os.PathLike[str]) -> bool:
    """Whether every user of this machine may read or change the file. False if there is none."""
    try:
        return bool(os.stat(path).st_mode & (stat.S_IROTH | stat.S_IWOTH))
    except OSError:
        return False
