"""Read a file that is small and regular, and no other: secrets, certificates, rules.

These files are read again while connections run. A FIFO or a device would hold up all of them until somebody writes to
it, and /dev/zero has no end. access/, client/ and kernel/ use this.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Container
from pathlib import Path

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


def changeable_by_all(path: str | os.PathLike[str]) -> str:
    """What lets every user of this machine change what this file says: its own name, or that of a folder above it, in
    which each of them can put something else in its place. Empty if nothing does, and if it cannot be seen."""
    try:
        if os.stat(path).st_mode & stat.S_IWOTH:
            return os.fspath(path)
        for folder in {each: 0 for name in (path, os.path.realpath(path)) for each in Path(name).absolute().parents}:
            # In a folder such as /tmp only its owner can replace a file.
            if os.stat(folder).st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH and not _is_mounted(folder):
                return str(folder)
    except OSError:
        pass
    return ""


def _is_mounted(folder: Path) -> bool:
    """Whether the folder is a mount that nobody can write to: container managers mount folders that all could change.
    Below such a mount it is not asked for: in a unit's ProtectSystem= all is read-only, and for others it is not."""
    return os.path.ismount(folder) and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def open_secret(path: str) -> str:
    """What is wrong with a file that holds a secret, and the mend; empty if nothing is."""
    if not is_open_to_all(path):
        return ""
    # podman and docker put secrets there, and let all users read them unless they are told a mode.
    mend = "mount it with mode=0400" if path.startswith("/run/secrets/") else f"chmod o-rw {path}"
    return f"every user of this machine can read or change {path}; {mend}"


def is_open_to_all(path: str | os.PathLike[str]) -> bool:
    """Whether every user of this machine may read or change the file. False if there is none."""
    try:
        return bool(os.stat(path).st_mode & (stat.S_IROTH | stat.S_IWOTH))
    except OSError:
        return False
