"""Opens a TAP, by name or by the first free name of a pattern; or one more queue of a TAP. pytun does the TUNSETIFF.

The kernel refuses a second user of an ordinary TAP. It takes 256 queues of a multi-queue one, from any process, and
each would get a part of the frames; so who has one is asked here. Read next: tap.py, which carries frames.
Source: Linux, Documentation/networking/tuntap.rst, drivers/net/tun.c (tun_set_iff).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from typing import Protocol

import gevent
import pytun
from gevent.monkey import get_original

from etherws.errors import DeviceError
from etherws.kernel import interfaces
from etherws.tunnel import tap_driver, tap_errors
from etherws.tunnel.device_names import PATTERN_MAX, DeviceNames

log = logging.getLogger(__name__)

#: A frame has a virtio_net_hdr before it, and no other header.
_FLAGS = pytun.IFF_TAP | pytun.IFF_NO_PI | pytun.IFF_VNET_HDR

#: Tries to open a device that seems to be in use by nobody, and seconds between them. A process that has it open may
#: have ended, or closed it, while somebody looks at it in /proc: the kernel releases it when that look is over, which
#: takes well below a millisecond unless the processor is busy. Together they take as long as to look for its user.
_TRIES, _PAUSE = 4, 0.01


class Address(Protocol):
    """Chooses an Ethernet address: see kernel/mac.py."""

    def __call__(self, name: str, *, persistent: bool) -> str | None:
        """The address for the interface of this name; None leaves it as it is."""


def open_device(pattern: str, names: DeviceNames | None = None, *, multi_queue: bool = False) -> int:
    """A descriptor of the first device that fits `pattern`, is not in use by `names`, and that this process can open.
    Raises DeviceError. With `multi_queue` a device that is made here can have more queues."""
    for name in (names or DeviceNames()).candidates(pattern):
        try:
            return _open(name, multi_queue)
        except (pytun.Error, OSError) as exc:
            # In use, or no TAP: try the pattern's next name.
            if _number(exc) in (errno.EBUSY, errno.EINVAL) and name != pattern:
                continue
            if _number(exc) == errno.EBUSY and (fd := _open_soon(name, multi_queue)) is not None:
                return fd
            raise DeviceError(tap_errors.explained(_number(exc), name)) from exc
    raise DeviceError(f"cannot create {pattern}: {PATTERN_MAX} such devices are in use; choose another name")


def open_queue(name: str, index: int) -> int:
    """A descriptor of one more queue of the multi-queue device that has this name and index. Raises DeviceError."""
    try:
        fd = _attach(name, pytun.IFF_MULTI_QUEUE)
    except (pytun.Error, OSError) as exc:
        raise DeviceError(f"cannot open one more queue: {tap_errors.explained(_number(exc), name)}") from exc
    try:
        # The kernel makes a device of this name if there is none any more.
        if tap_driver.name_and_index(fd)[1] == index:
            return fd
    except DeviceError:
        os.close(fd)
        raise
    os.close(fd)
    raise DeviceError(f"{name} was renamed or deleted while one more queue was opened")


def _open(name: str, multi_queue: bool) -> int:
    """Raises OSError or pytun.Error."""
    if multi_queue:
        try:
            return _sole(_attach(name, pytun.IFF_MULTI_QUEUE | pytun.IFF_TUN_EXCL), name, new=True)
        except (pytun.Error, OSError) as exc:
            if _number(exc) != errno.EBUSY:
                raise
    try:
        # Also one that exists, is persistent, and has one queue.
        return _attach(name, 0)
    except (pytun.Error, OSError) as exc:
        if _number(exc) != errno.EINVAL or (queues := _queues(name)) is None:
            raise
    count, owned = queues
    if count:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    fd = _sole(_attach(name, pytun.IFF_MULTI_QUEUE), name)
    if not owned:
        log.warning(
            "%s belongs to no user, so each user of this machine can open a queue of it and gets frames; make it by"
            " 'ip tuntap add %s mode tap multi_queue user root'",
            *(name, name),
        )
    return fd


def _open_soon(name: str, multi_queue: bool) -> int | None:
    """The descriptor of a device that was in use, if no process has it and it is free a moment later."""
    if tap_errors.user_of(name):
        return None
    for _ in range(_TRIES):
        time.sleep(_PAUSE)
        with contextlib.suppress(pytun.Error, OSError):
            return _open(name, multi_queue)
    return None


def _sole(fd: int, name: str, *, new: bool = False) -> int:
    """The descriptor, if no other process has a queue of the device. Raises OSError; then it is closed."""
    try:
        if new:
            # Else each user of this machine could open a queue, and would get frames.
            tap_driver.set_owner(fd, os.geteuid())
        if (queues := _queues(name)) and queues[0] > 1:
            # One was as fast.
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    except OSError:
        os.close(fd)
        raise
    return fd


def _attach(name: str, flags: int) -> int:
    """Raises OSError or pytun.Error."""
    device = pytun.TunTapDevice(name=name, flags=_FLAGS | flags)
    # pytun closes its own descriptor when nobody has the object any more. The TAP may outlive that.
    with contextlib.closing(device):
        return os.dup(device.fileno())


def _number(exc: Exception) -> int:
    """The number of the error (errno(3))."""
    return exc.args[0] if exc.args and isinstance(exc.args[0], int) else 0


def _queues(name: str) -> tuple[int, bool] | None:
    """As interfaces.tap_queues()."""
    try:
        return interfaces.tap_queues(name)
    except DeviceError:
        return None


def forget_events(fd: int) -> None:
    """Have this process's epoll forget the descriptor, which is about to be closed.

    The kernel does that at close() only if nobody else has the device open (epoll(7), questions and answers, 6). Else
    each frame that comes later would wake the event loop for nothing. Loops without epoll need nothing.
    """
    loop = gevent.get_hub().loop.fileno()
    if loop is None:
        return
    # A duplicate, because the object closes what it is made of. If none is left, libev sees at the next frame that
    # nobody waits for it, and forgets the descriptor itself.
    with contextlib.suppress(OSError), get_original("select", "epoll").fromfd(os.dup(loop)) as epoll:
        epoll.unregister(fd)
