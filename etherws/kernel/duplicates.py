"""Asks the LAN whether another machine has an IP address of --inet, each time that a connection begins.

The kernel asks by itself once, when it gets an IPv6 address: that is before there is a connection, so nobody hears it.
For IPv4 it asks never. So a probe is sent here for each address, as a new machine does, and answers are read for a
moment. The log says once which machine has it. Read next: packet_sockets.py; inet.py, which gives the addresses.

Sources: RFC 5227, section 2.1 (ARP probes); RFC 4862, section 5.4, and RFC 4861, sections 4.3 and 4.4 (IPv6); RFC 2464,
section 7 (its groups on Ethernet).
"""

from __future__ import annotations

import ipaddress
import logging
import socket as blocking
import struct
from collections.abc import Callable, Collection, Iterable
from time import monotonic

import gevent
from gevent import socket

from etherws.errors import printable
from etherws.kernel import links, packet_sockets, socket_filter

log = logging.getLogger(__name__)

#: Seconds from the begin of a connection until each round of probes. Both ends notice a carrier a moment later, and
#: lose frames until then; and a far bridge may have a port that does not pass frames yet.
TIMES = (0.1, 1.0, 3.0)

#: Seconds in which answers are read after each round, and until the next search: a server's clients may come in floods.
LISTEN, PAUSE = 1.0, 10.0

#: Answers that are looked at after one round: one machine sends one or two for each address.
FRAMES = 256

#: Warnings of one process: as many as a person reads.
WARNINGS_MAX = 64

#: include/uapi/linux/if_ether.h; the next header of ICMPv6; neighbour solicitation and advertisement (RFC 4861).
ETH_P_ALL, ETH_P_ARP, ETH_P_IPV6, ICMPV6, SOLICITATION, ADVERTISEMENT = 0x0003, 0x0806, 0x86DD, 58, 135, 136

#: ARP on Ethernet for IPv4 (RFC 826): types and lengths, operation; then both sides' addresses.
_ARP, _ARP_KIND = struct.Struct(">HHBBH6s4s6s4s"), (1, 0x0800, 6, 4)

#: Bytes: where IPv6's next header, ICMPv6's type and the target of a neighbour's message are in a frame.
_NEXT_HEADER, _TYPE, _TARGET, _FRAME_MIN = 20, 54, 62, 78

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Keep ARP, and neighbours' advertisements.
_FILTER = [
    (socket_filter.LOAD_HALF, 0, 0, 12),
    (socket_filter.JUMP_IF_EQUAL, 5, 0, ETH_P_ARP),
    (socket_filter.JUMP_IF_EQUAL, 0, 5, ETH_P_IPV6),
    (socket_filter.LOAD_BYTE, 0, 0, _NEXT_HEADER),
    (socket_filter.JUMP_IF_EQUAL, 0, 3, ICMPV6),
    (socket_filter.LOAD_BYTE, 0, 0, _TYPE),
    (socket_filter.JUMP_IF_EQUAL, 0, 1, ADVERTISEMENT),
    (socket_filter.RETURN, 0, 0, _FRAME_MIN),
    (socket_filter.RETURN, 0, 0, socket_filter.NOTHING),
]


class Duplicates:
    """Looks for other machines that have our addresses."""

    def __init__(self, addresses: Iterable[str], locate: Callable[[], int | None]) -> None:
        """`addresses` are texts such as ``192.0.2.2/24``; `locate` returns the index of the interface that has them,
        None if it is not here."""
        self._addresses = frozenset(ipaddress.ip_interface(text).ip for text in addresses)
        self._locate = locate
        self._told = set[tuple[Address, str]]()
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._again = False

    def begin(self) -> None:
        """A connection is about to begin. Does not wait."""
        if not self._addresses:
            return
        if self._greenlet is None or self._greenlet.ready():
            self._greenlet = gevent.spawn(self._run)
        else:
            self._again = True

    def close(self) -> None:
        """Look no longer."""
        if self._greenlet is not None:
            self._greenlet.kill()

    def _run(self) -> None:
        while True:
            self._again = False
            try:
                self._search()
            except OSError as exc:
                # It is gone, or this process may have no packet socket.
                log.debug("whether other machines have our IP addresses is not seen: %s", exc.strerror)
            gevent.sleep(PAUSE)
            if not self._again:
                return

    def _search(self) -> None:
        before = 0.0
        for time in TIMES:
            gevent.sleep(max(0.0, time - before))
            before = time + LISTEN
            if (index := self._locate()) and (link := links.find(index)) and link.address:
                self._ask(link.name, link.address)

    def _ask(self, name: str, mac: str) -> None:
        """Send a probe for each address by this interface, and tell of answers."""
        sock = packet_sockets.take()
        try:
            socket_filter.attach(sock, _FILTER)
            sock.bind((name, ETH_P_ALL))
            source = bytes.fromhex(mac.replace(":", ""))
            for address in sorted(self._addresses, key=str):
                frame = probe(address, source)
                sock.sendto(frame, (name, int.from_bytes(frame[12:14], "big")))
            self._listen(sock, name, source)
        except BlockingIOError:
            # Its queue is full; the next round follows.
            pass
        finally:
            packet_sockets.give_back(sock)

    def _listen(self, sock: blocking.socket, name: str, source: bytes) -> None:
        deadline = monotonic() + LISTEN
        for _ in range(FRAMES):
            if (left := deadline - monotonic()) <= 0:
                return
            gevent.with_timeout(left, socket.wait_read, sock.fileno(), timeout_value=None)
            try:
                frame = sock.recv(_FRAME_MIN)
            except BlockingIOError:
                continue
            if (found := owner(frame, self._addresses)) and found[1] != source.hex(":"):
                self._tell(name, *found)

    def _tell(self, name: str, address: Address, mac: str) -> None:
        if (address, mac) in self._told or len(self._told) >= WARNINGS_MAX:
            return
        self._told.add((address, mac))
        log.warning(
            "another machine of the LAN, with the Ethernet address %s, has the address %s of %s, too: both lose packets"
            " until one of them has another address. Change --inet here, or the address of that machine",
            mac,
            address,
            printable(name),
        )


def probe(address: Address, source: bytes) -> bytes:
    """The frame that asks who has the address, from this Ethernet address. Whoever hears it learns nothing of us."""
    if isinstance(address, ipaddress.IPv4Address):
        body = _ARP.pack(*_ARP_KIND, 1, source, bytes(4), bytes(6), address.packed)
        return (b"\xff" * 6 + source + ETH_P_ARP.to_bytes(2, "big") + body).ljust(60, b"\0")
    group = bytes.fromhex("ff0200000000000000000001ff") + address.packed[13:]
    message = struct.pack(">BBHI", SOLICITATION, 0, 0, 0) + address.packed
    # The sum is over a pseudo header (RFC 8200, section 8.1), and the message.
    checksum = packet_sockets.checksum(bytes(16) + group + struct.pack(">II", len(message), ICMPV6) + message)
    message = message[:2] + checksum.to_bytes(2, "big") + message[4:]
    header = struct.pack(">IHBB", 6 << 28, len(message), ICMPV6, 255) + bytes(16) + group
    return b"\x33\x33" + group[12:] + source + ETH_P_IPV6.to_bytes(2, "big") + header + message


def owner(frame: bytes, addresses: Collection[Address]) -> tuple[Address, str] | None:
    """Which of the addresses the sender of this frame says that it has, and its Ethernet address; None if none."""
    found: Address
    kind = frame[12:14]
    if kind == ETH_P_ARP.to_bytes(2, "big") and len(frame) >= 14 + _ARP.size:
        *head, operation, mac, sender, _, target = _ARP.unpack_from(frame, 14)
        # A request with our address as its sender's is a machine that has it, too; one without sender is a probe.
        if tuple(head) != _ARP_KIND or operation not in (1, 2):
            return None
        found = ipaddress.IPv4Address(sender)
        if sender == bytes(4) and operation == 1:
            found = ipaddress.IPv4Address(target)
    elif kind == ETH_P_IPV6.to_bytes(2, "big") and len(frame) >= _FRAME_MIN and frame[_NEXT_HEADER] == ICMPV6:
        if frame[_TYPE] != ADVERTISEMENT:
            return None
        mac, found = frame[6:12], ipaddress.IPv6Address(frame[_TARGET:_FRAME_MIN])
    else:
        return None
    return (found, bytes(mac).hex(":")) if found in addresses else None
