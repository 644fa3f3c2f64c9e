"""Memory that processes share by a descriptor, and whose size nobody can change: a sealed memfd.

To touch a page that was cut off from a mapping would end a process by SIGBUS. So a process that maps or reads
memory of another one asks is_sealed() before. What is in it is the caller's business: state_file.py, for example.

Pure, but for the file itself. Sources: memfd_create(2), fcntl(2), "File Sealing".
"""

from __future__ import annotations

import fcntl
import os
import stat

#: Nobody can change the size, or these seals.
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def make(name: str, size: int) -> int:
    """A descriptor of `size` bytes of zeros, close-on-exec; `name` is what /proc shows. Raises OSError."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def is_sealed(fd: int, size: int) -> bool:
    """Whether the descriptor is such memory, of this size in bytes. No error for any other file."""
    try:
        found = os.fstat(fd)
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size and seals & _SEALS == _SEALS
