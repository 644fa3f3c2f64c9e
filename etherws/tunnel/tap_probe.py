"""Whether this kernel takes UDP super-frames: what its TUN/TAP driver answers to two of them. Asked once a process.

They are written to a TAP that is down: the kernel looks at the virtio header, and then says that the interface is
down. So no frame goes anywhere. Drivers of network cards cannot be tried so; see SPOILED. A worker has its port
process's answer; "etherws check" says the same words. Read next: udp_super_frames.py; docs/wire.rst, "UDP
super-frames".

Source: Linux, drivers/net/tun.c (tun_get_user), include/linux/virtio_net.h (virtio_net_hdr_to_skb).
"""

from __future__ import annotations

import errno
import logging
import os
import re
import struct

from etherws.errors import DeviceError
from etherws.tunnel import tap_device, tap_driver, tap_removal
from etherws.tunnel.udp_super_frames import SEGMENTS_MAX, UDP_L4

log = logging.getLogger(__name__)

#: Releases of Linux, from the first on and before the second, that some network cards have spoil UDP super-frames:
#: their drivers cut them by a wrong length in the UDP header (udp: gso: Use single MSS length in UDP header for
#: GSO_PARTIAL, of Linux 7.0; repaired in 7.1.5).
SPOILED = (7, 0, 0), (7, 1, 5)

#: The name of the TAP that is made for a moment where no other is down.
NAME = "ewprobe%d"

# What is known so far.
_takes: bool | None = None


def takes_uso() -> bool:
    """Whether this kernel takes UDP super-frames as docs/wire.rst has them. False if nobody may find out."""
    if _takes is None:
        try:
            fd = tap_device.open_device(NAME)
            try:
                tap_driver.set_header(fd, NAME)
                ask(fd)
            finally:
                tap_removal.remove(fd)
        except DeviceError as exc:
            log.debug("UDP super-frames are not offered: nobody can find out whether this kernel takes them: %s", exc)
            tell(takes=False)
    return bool(_takes)


def tell(*, takes: bool) -> None:
    """Another process of this machine has found this out."""
    global _takes
    _takes = takes


def ask(fd: int) -> None:
    """Find out by this TAP, which was made just now and has our header, unless that was done before."""
    if _takes is None:
        if why := why_not(fd):
            log.debug("UDP super-frames are not offered: %s", why)
        tell(takes=not why)


def why_not(fd: int) -> str:
    """Why this kernel does not take UDP super-frames, and what to try; empty if it does. `fd` is as that of ask()."""
    # Up to Linux 6.5 a kernel takes any number of datagrams, and loses those for a VXLAN of its own. Some releases of
    # 6.6 and 6.8 take 64 at most, and a peer may send more.
    if _refusal(fd, SEGMENTS_MAX + 1) != errno.EINVAL or _refusal(fd, SEGMENTS_MAX) not in (errno.EIO, 0):
        return f"this kernel does not take {SEGMENTS_MAX} datagrams, and no more, at once; use Linux 6.9 or later"
    release = os.uname().release
    if spoils(release):
        repaired = ".".join(map(str, SPOILED[1]))
        return f"with Linux {release}, drivers of some network cards spoil them; use Linux {repaired} or later"
    return ""


def spoils(release: str) -> bool:
    """Whether this release of Linux, as uname(2) names it, is one of SPOILED."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    return found is not None and SPOILED[0] <= tuple(int(part or 0) for part in found.groups()) < SPOILED[1]


def _refusal(fd: int, segments: int) -> int:
    """The number of the error with which the kernel refuses a super-frame of so many datagrams of one byte. 0 if
    somebody has the interface up already: the frame is to no machine then."""
    udp = struct.pack(">HHHH", 9, 9, 8 + segments, 0xFFFF) + bytes(segments)
    # From and to 192.0.2.1, an address of documentation (RFC 5737).
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(udp), 0, 0, 1, 17, 0, 0xC0000201, 0xC0000201)
    frame = b"\x02" * 12 + b"\x08\x00" + ip + udp
    try:
        os.write(fd, struct.pack("<BBHHHH", 1, UDP_L4, 42, 1, 34, 6) + frame)
    except OSError as exc:
        return exc.errno or 0
    return 0
