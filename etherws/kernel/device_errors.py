"""Turns what the kernel answers into a DeviceError: one sentence that says what failed, on what, and what to try.

The hints are the caller's, since one error number means different things for a bridge and for a filter. Used by
interfaces.py and port_filter.py.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from etherws.errors import DESCRIPTORS_HINT, DeviceError
from etherws.kernel.pyroute2_parts import NetlinkError

#: Hints that are right whatever was tried: also a netlink socket is a descriptor.
_COMMON = {errno.EMFILE: DESCRIPTORS_HINT, errno.ENFILE: "allow more open files on this machine by sysctl fs.file-max"}


@contextmanager
def device_errors(action: str, hints: Mapping[int, str]) -> Iterator[None]:
    """Turn an OSError or NetlinkError of the block into a DeviceError: "cannot ACTION: what the kernel said; hint".

    `hints` says what to try for each error number (errno(3)); other numbers get no hint, but for
    the lack of descriptors.
    """
    try:
        yield
    except (NetlinkError, OSError) as exc:
        number = exc.code if isinstance(exc, NetlinkError) else exc.errno or 0
        hint = hints.get(number) or _COMMON.get(number)
        raise DeviceError(f"cannot {action}: {os.strerror(number)}" + (f"; {hint}" if hint else "")) from exc
