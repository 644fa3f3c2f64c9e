"""Tells the far LAN which machines are behind an interface now, although they say nothing themselves.

A client may come back at another server of the same LAN. The LAN sends frames for the machines behind it to the old
place until it hears from them at the new one. So one small frame goes out from the address of each. Bridges learn its
source and do not pass it on: broadcasts of thousands of clients would be a storm. Read next: client/local_end.py.

Sources: IEEE 802.1Q, table 8-1 (addresses that bridges do not pass on); Linux net/bridge/br_input.c,
br_handle_local_finish(), which learns; include/uapi/linux/neighbour.h.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import struct
from collections.abc import Callable, Iterator
from socket import if_indextoname, socket

import gevent

from etherws.errors import DeviceError
from etherws.kernel import bridge_tables, links, netlink, packet_sockets
from etherws.kernel.bridge_states import ports_now
from etherws.walks import in_turns

log = logging.getLogger(__name__)

#: The group "nearest bridge"; and a type that is nobody's, for local experiments (IEEE 802, 9.2.3).
NEAREST_BRIDGE, TYPE = bytes.fromhex("0180c200000e"), b"\x88\xb5"

#: What stands before the type of a frame in a VLAN: IEEE 802.1Q.
_TAG = struct.Struct(">HH")
_TAGGED = 0x8100

#: Bytes of the smallest Ethernet frame without its checksum (IEEE 802.3).
FRAME = 60

#: So many machines are announced, those that were heard last. The others are found when they speak. They must fit into
#: a TAP's queue, of 500 frames.
MACHINES_MAX = 256

#: Seconds from the begin of a connection. Both ends notice a carrier a moment later, and lose frames until then.
TIMES = (0.1, 1.0)

#: include/uapi/linux/neighbour.h: when an entry was used, and its VLAN; and flags: of the interface itself, and not of
#: its bridge; given by who knows of machines elsewhere, such as FRR.
NDA_CACHEINFO, NDA_VLAN, NTF_SELF, NTF_EXT_LEARNED = 3, 5, 0x02, 0x10

#: Bytes of an Ethernet address.
_ADDRESS = 6

#: struct ndmsg: family, index, state, flags, type. struct nda_cacheinfo: confirmed, used, updated: how long ago in
#: hundredths of a second; and a count.
_NDMSG, _CACHEINFO = struct.Struct("=BxxxiHBB"), struct.Struct("=IIII")
_NUMBER, _SHORT = struct.Struct("=I"), struct.Struct("=H")


class Announcer:
    """Announces the machines behind one interface."""

    def __init__(self) -> None:
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._sock: socket | None = None

    def begin(self, locate: Callable[[], int | None]) -> None:
        """A connection is about to begin of the interface whose present index `locate` returns; None if it is in
        another network namespace, and then nothing is announced. Does not wait."""
        self._stop()
        self._greenlet = gevent.spawn(self._announce, locate)

    def close(self) -> None:
        """Announce no more."""
        self._stop()
        if self._sock is not None:
            packet_sockets.give_back(self._sock)
            self._sock = None

    def _stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()
            self._greenlet = None

    def _announce(self, locate: Callable[[], int | None]) -> None:
        before = 0.0
        for time in TIMES:
            gevent.sleep(time - before)
            before = time
            try:
                if index := locate():
                    self._send(index, announcements(index))
            except (OSError, DeviceError) as exc:
                log.debug("the machines behind this client are not announced: %s", exc)

    def _send(self, index: int, frames: list[bytes]) -> None:
        if self._sock is None:
            # It is kept: the kernel takes milliseconds to close one.
            self._sock = packet_sockets.take()
        name = if_indextoname(index)
        # If the queue is full, the rest is found when it speaks.
        with contextlib.suppress(BlockingIOError):
            for frame in frames:
                self._sock.sendto(frame, (name, int.from_bytes(TYPE, "big")))


def announcements(index: int) -> list[bytes]:
    """The frames that announce what is behind the interface of this index: of a port, the bridge and the machines that
    it has learned at its other ports; of one that is in no bridge, itself. None for a port that spanning tree keeps
    closed, which is not the way to them, and for a part of a bond, which does the same by itself. Raises OSError.
    Blocks this greenlet while the kernel is asked."""
    link = links.find(index)
    if link is None or not link.up:
        return []
    if not link.master:
        return [_frame(bytes.fromhex(link.address.replace(":", "")), 0)] if link.address else []
    port = ports_now({index}).get(index)
    if port is None or port.state != "forwarding":
        return []
    found = heapq.nsmallest(MACHINES_MAX, _learned(link.master, index))
    frames = [_frame(address, vlan) for _, address, vlan in found]
    if own := links.get(link.master).address:
        frames.append(_frame(bytes.fromhex(own.replace(":", "")), 0))
    return frames


def _learned(bridge: int, port: int) -> Iterator[tuple[int, bytes, int]]:
    """Machines that this bridge has at other ports than this: how long ago it heard them, in hundredths of a second;
    the address, and the VLAN, 0 if the bridge knows none."""
    body = links.IFINFOMSG.pack(links.AF_BRIDGE, 0, 0, 0, 0) + netlink.attribute(
        links.IFLA_MASTER, _NUMBER.pack(bridge)
    )
    for message in in_turns(bridge_tables.dump(bridge_tables.RTM_GETNEIGH, body)):
        if message.kind != bridge_tables.RTM_NEWNEIGH or len(message.body) < _NDMSG.size:
            continue
        _, at, state, flags, _ = _NDMSG.unpack_from(message.body)
        if at in (port, bridge) or state & bridge_tables.NUD_PERMANENT or flags & (NTF_SELF | NTF_EXT_LEARNED):
            continue
        values = dict(netlink.attributes(message.body[_NDMSG.size :]))
        address = bytes(values.get(bridge_tables.NDA_LLADDR, b""))
        ages, vlan = values.get(NDA_CACHEINFO, b""), values.get(NDA_VLAN, b"")
        if len(address) == _ADDRESS and len(ages) == _CACHEINFO.size:
            yield _CACHEINFO.unpack(ages)[2], address, _SHORT.unpack(vlan)[0] if len(vlan) == _SHORT.size else 0


def _frame(source: bytes, vlan: int) -> bytes:
    tag = _TAG.pack(_TAGGED, vlan) if vlan else b""
    return (NEAREST_BRIDGE + source + tag + TYPE).ljust(FRAME, b"\0")
