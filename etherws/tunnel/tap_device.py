"""Opens a TAP, by name or by the first free name of a pattern. pytun does the TUNSETIFF.

Read next: tap.py, which carries frames. Source: Linux, Documentation/networking/tuntap.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Container, Iterator

import gevent
import pytun
from gevent.monkey import get_original

from etherws.errors import DeviceError
from etherws.tunnel import tap_errors

#: How many numbers are tried for a pattern such as ethws%d; more than the 1,023 ports of a bridge.
PATTERN_MAX = 4096


def open_device(pattern: str, taken: Container[str] = frozenset()) -> int:
    """A descriptor of the first device that fits `pattern`, is not in `taken`, and that this process can open. Raises
    DeviceError."""
    for name in _names(pattern):
        if name in taken and name != pattern:
            continue
        try:
            device = pytun.TunTapDevice(name=name, flags=pytun.IFF_TAP | pytun.IFF_NO_PI | pytun.IFF_VNET_HDR)
            # pytun closes its own descriptor when nobody has the object any more. The TAP may outlive that.
            with contextlib.closing(device):
                return os.dup(device.fileno())
        except (pytun.Error, OSError) as exc:
            number = exc.args[0] if exc.args and isinstance(exc.args[0], int) else 0
            # In use, or no TAP: try the pattern's next name.
            if number in (errno.EBUSY, errno.EINVAL) and name != pattern:
                continue
            raise DeviceError(tap_errors.explained(number, name)) from exc
    raise DeviceError(f"cannot create {pattern}: {PATTERN_MAX} such devices are in use; choose another name")


def forget_events(fd: int) -> None:
    """Have this process's epoll forget the descriptor, which is about to be closed.

    The kernel does that at close() only if nobody else has the device open (epoll(7), questions and answers, 6). Else
    each frame that comes later would wake the event loop for nothing. Loops without epoll need nothing.
    """
    loop = gevent.get_hub().loop.fileno()
    if loop is None:
        return
    # A duplicate, because the object closes what it is made of.
    with get_original("select", "epoll").fromfd(os.dup(loop)) as epoll, contextlib.suppress(OSError):
        epoll.unregister(fd)


def _names(pattern: str) -> Iterator[str]:
    """Names in the order of their numbers. The kernel's own %d would never choose a persistent device that exists."""
    if "%d" not in pattern:
        yield pattern
        return
    for number in range(PATTERN_MAX):
        yield pattern.replace("%d", str(number))
