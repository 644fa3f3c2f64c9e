"""The file of ``--pidfile``: it holds this process's ID, and is locked, while the process runs.

Root often writes it, and other users may write to the folder, as to /tmp. So no link is followed, and only a file that
we have made ourselves is written over. daemon.py uses this.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator

from etherws.errors import DaemonError


@contextlib.contextmanager
def pid_file(path: str | None, inherited: int | None = None) -> Iterator[int | None]:
    """Keep this process's ID in the file while the block runs, which gets its descriptor; None for no file.

    `inherited` is the descriptor that this process had before it executed this image: with the lock, and the same ID in
    the file. Raises DaemonError if another process has the file, or if it is not safe to write to it.
    """
    if inherited is not None and (path is None or not _is_open_file(inherited, path)):
        os.close(inherited)
        inherited = None
    if path is None:
        yield None
        return
    file = _opened(path) if inherited is None else inherited
    try:
        if inherited is None:
            _check(file, path)
            _lock(file, path)
        try:
            if inherited is None:
                _write(file, path)
            yield file
        finally:
            # Unless it has been removed, and another process has made a new one.
            if _is_open_file(file, path):
                with contextlib.suppress(OSError):
                    os.unlink(path)
    finally:
        os.close(file)


def _opened(path: str) -> int:
    """The file, open; made if it is not there. Raises DaemonError if it is not safe to use it."""
    try:
        folder = os.stat(os.path.dirname(os.path.abspath(path))).st_mode
        # In a folder with the sticky bit, only a file's owner can replace it (unlink(2)).
        if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
            raise DaemonError(
                f"cannot use --pidfile {path}: everyone may replace files in its folder; name one in /run"
            )
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        link = "; it is a symbolic link, name the file itself" if os.path.islink(path) else ""
        raise DaemonError(f"cannot write --pidfile {path}: {exc.strerror}{link}") from exc


def _is_open_file(file: int, path: str) -> bool:
    """Whether the open file has this name."""
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except OSError:
        return False


def _check(file: int, path: str) -> None:
    """Raise DaemonError unless the open file is this user's, has one name, and holds a process ID or nothing."""
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink > 1:
        raise DaemonError(
            f"cannot use --pidfile {path}: it is not a regular file of this user with one name; remove it, or name"
            " another"
        )
    # It may be a file that was named by mistake.
    if not re.fullmatch(rb"[0-9]{0,20}\n?", os.pread(file, 100, 0)):
        raise DaemonError(f"cannot use --pidfile {path}: it holds more than a process ID; remove it, or name another")


def _write(file: int, path: str) -> None:
    """Write this process's ID. Raises DaemonError if the disk is full, or the like."""
    try:
        os.fchmod(file, 0o644)
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        # Some file systems, NFS among them, only tell now that there is no room.
        os.fsync(file)
    except OSError as exc:
        raise DaemonError(f"cannot write --pidfile {path}: {exc.strerror}; name another, such as one in /run") from exc


def _lock(file: int, path: str) -> None:
    """Lock the file. Raises DaemonError if another process has the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        other = os.pread(file, 20, 0).decode(errors="replace").strip()
        raise DaemonError(f"--pidfile {path} belongs to process {other}, which still runs; stop that first") from exc
    except OSError as exc:
        raise DaemonError(f"cannot lock --pidfile {path}: {exc.strerror}; name one in /run") from exc
