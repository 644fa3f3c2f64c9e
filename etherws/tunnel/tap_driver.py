"""What the TUN/TAP driver is asked and told of one device by its descriptor: name, place, header, offloads.

A persistent device keeps what it was told after its process has gone. So put_back() leaves it to its next owner as it
was. No frame passes here. Read next: tap.py, which carries frames.

Sources: Linux, drivers/net/tun.c, include/uapi/linux/if_tun.h, sockios.h; netdevice(7), ioctl_nsfs(2).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from typing import NamedTuple

from etherws.errors import DESCRIPTORS_HINT, DeviceError
from etherws.kernel import interfaces
from etherws.tunnel.offloads import Offload
from etherws.tunnel.wire import VNET_BYTES

#: include/uapi/linux/if_tun.h
TUNSETOWNER, TUNSETOFFLOAD = 0x400454CC, 0x400454D0
TUNGETIFF = 0x800454D2
TUNGETVNETHDRSZ, TUNSETVNETHDRSZ = 0x800454D7, 0x400454D8
TUNSETVNETLE, TUNGETVNETLE = 0x400454DC, 0x800454DD
TUNGETDEVNETNS, TUNSETQUEUE = 0x54E3, 0x400454D9
IFF_TAP, IFF_MULTI_QUEUE, IFF_PERSIST = 0x0002, 0x0100, 0x0800
IFF_ATTACH_QUEUE, IFF_DETACH_QUEUE = 0x0200, 0x0400
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN, TUN_F_USO4, TUN_F_USO6 = 1, 2, 4, 8, 0x20, 0x40

#: What may be left undone for a peer that speaks version 2, best first: a kernel refuses flags that it does not know.
_TCP = (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6, TUN_F_CSUM, 0)

#: The same for each Offload. The kernel takes TUN_F_USO4 and TUN_F_USO6 together only.
OFFLOADS = {Offload.NONE: (0,), Offload.TCP: _TCP, Offload.TCP_UDP: (_TCP[0] | TUN_F_USO4 | TUN_F_USO6, *_TCP)}

#: include/uapi/linux/sockios.h; the driver knows these for the namespace where the descriptor was opened.
SIOCGIFHWADDR, SIOCGSKNS = 0x8927, 0x894C

#: struct ifreq has this many bytes (netdevice(7)); a hardware address is at this place.
IFREQ_BYTES, IFREQ_ADDRESS = 40, slice(18, 24)

#: How often a device may be renamed while its index is asked for.
RENAMES_MAX = 10

#: Packets that are dropped from a queue at most, at once: others may fill it meanwhile. By default it has 1,000.
EMPTY_MAX = 10_000

#: What is undone for a header that another program does not know.
_INT = struct.Struct("i")


class Header(NamedTuple):
    """The header before each frame: its bytes, and whether it is always little endian."""

    size: int
    little_endian: int


#: What this process sets: version 2 sends it as it is (docs/wire.rst).
OURS = Header(VNET_BYTES, 1)


def interface(fd: int) -> tuple[str, int]:
    """The device's present name, and its flags (struct ifreq, netdevice(7)). Raises OSError once it is gone."""
    name, flags = struct.unpack_from("16sH", fcntl.ioctl(fd, TUNGETIFF, bytes(IFREQ_BYTES)))
    return os.fsdecode(name.split(b"\0")[0]), flags


def set_header(fd: int, name: str) -> Header:
    """Set the header before each frame, and switch the offloads off. A persistent device still has what its last owner
    set: return that, for put_back(). Raises DeviceError."""
    try:
        found = Header(*(_INT.unpack(fcntl.ioctl(fd, get, bytes(4)))[0] for get in (TUNGETVNETHDRSZ, TUNGETVNETLE)))
        _set(fd, OURS)
    except OSError as exc:
        raise DeviceError(f"cannot set up {name}: {exc.strerror}; Linux 4.0 or later is needed") from exc
    return found


def set_offloads(fd: int, offload: Offload) -> int:
    """Have as many of these offloads as this kernel knows; return their flags. No error if the device is gone."""
    for flags in OFFLOADS[offload]:
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, TUNSETOFFLOAD, flags)
            return flags
    return 0


def set_owner(fd: int, user: int) -> None:
    """Let only this user, and who has CAP_NET_ADMIN, open the device. Raises OSError."""
    fcntl.ioctl(fd, TUNSETOWNER, user)


def detach(fd: int) -> int:
    """Have the kernel give this queue of a multi-queue device no more packets; return how many waited in it, which are
    lost. Nothing happens if it is detached already, or gone, or the device's only one."""
    with contextlib.suppress(OSError):
        if interface(fd)[1] & (IFF_MULTI_QUEUE | IFF_DETACH_QUEUE) == IFF_MULTI_QUEUE:
            # The kernel drops them, and does not say how many.
            lost = empty(fd)
            _set_queue(fd, IFF_DETACH_QUEUE)
            return lost
    return 0


def attach(fd: int) -> None:
    """Have the kernel give it packets again. Raises OSError once the device is gone."""
    if interface(fd)[1] & IFF_DETACH_QUEUE:
        _set_queue(fd, IFF_ATTACH_QUEUE)


def _set_queue(fd: int, flags: int) -> None:
    fcntl.ioctl(fd, TUNSETQUEUE, struct.pack(f"16xH{IFREQ_BYTES - 18}x", flags))


def empty(fd: int) -> int:
    """Drop what waits in this queue of the device; return how many packets that were."""
    for count in range(EMPTY_MAX):
        try:
            # The kernel takes no less.
            os.read(fd, VNET_BYTES)
        except OSError:
            return count
    return EMPTY_MAX


def put_back(fd: int, found: Header) -> None:
    """Have the kernel finish each frame again, and set the header as it was. No error if the device is gone."""
    with contextlib.suppress(OSError):
        _set(fd, found)


def _set(fd: int, header: Header) -> None:
    # What offloads a device had cannot be read. Its next owner asks for those that it knows.
    fcntl.ioctl(fd, TUNSETOFFLOAD, 0)
    fcntl.ioctl(fd, TUNSETVNETHDRSZ, _INT.pack(header.size))
    fcntl.ioctl(fd, TUNSETVNETLE, _INT.pack(header.little_endian))


def name_and_index(fd: int) -> tuple[str, int]:
    """The device's present name and its index. Raises DeviceError.

    Somebody, for example udev, may rename the device at any time, and its old name may be another interface's at once.
    """
    with contextlib.suppress(OSError):
        for _ in range(RENAMES_MAX):
            name = interface(fd)[0]
            try:
                index = interfaces.index_of(name)
            except DeviceError as exc:
                if DESCRIPTORS_HINT in str(exc):
                    raise
                continue
            if interface(fd)[0] == name:
                return name, index
    raise DeviceError("cannot find the new interface; was it deleted, or moved to another network namespace?")


def place(fd: int) -> tuple[str, int | None]:
    """The device's present name, and its index; None while it is in another network namespace. Raises OSError once it
    is gone, or if nobody can tell."""
    for _ in range(RENAMES_MAX):
        name = interface(fd)[0]
        try:
            index = socket.if_nametoindex(name)
        except OSError:
            index = 0
        # Another interface may have the name here.
        if not is_here(fd):
            return name, None
        if index and interface(fd)[0] == name:
            return name, index
    raise OSError(errno.EAGAIN, "its name changes again and again")


def tap_of(fd: int) -> tuple[str, int | None]:
    """As place(). Raises DeviceError if the device is gone, or is no TAP."""
    try:
        name, flags = interface(fd)
        if not flags & IFF_TAP:
            raise DeviceError(f"{name} is no TAP")
        return place(fd)
    except OSError as exc:
        if exc.errno == errno.EMFILE:
            raise DeviceError(f"cannot find an interface: {exc.strerror}; {DESCRIPTORS_HINT}") from exc
        raise DeviceError(f"descriptor {fd} is no interface that exists: {exc.strerror}") from exc


def is_here(fd: int) -> bool:
    """Whether the device is in the network namespace where it was opened. Raises OSError once it is gone.

    Where the kernel does not say (before Linux 5.2, or to a user without CAP_NET_ADMIN) an interface with the device's
    name and hardware address counts as the device.
    """
    try:
        return _namespace(fd, TUNGETDEVNETNS) == _namespace(fd, SIOCGSKNS)
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.EINVAL, errno.ENOTTY):
            raise
    request = struct.pack(f"16s{IFREQ_BYTES - 16}x", os.fsencode(interface(fd)[0]))
    own = fcntl.ioctl(fd, SIOCGIFHWADDR, request)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            return fcntl.ioctl(sock, SIOCGIFHWADDR, request)[IFREQ_ADDRESS] == own[IFREQ_ADDRESS]
        except OSError:
            return False


def own_namespace(fd: int) -> tuple[int, int]:
    """The network namespace in which the descriptor was opened, by device and inode. Raises OSError."""
    return _namespace(fd, SIOCGSKNS)


def _namespace(fd: int, request: int) -> tuple[int, int]:
    """Which network namespace the driver names."""
    namespace = fcntl.ioctl(fd, request)
    try:
        found = os.fstat(namespace)
    finally:
        os.close(namespace)
    return found.st_dev, found.st_ino
