"""Gives an interface the IP addresses of --inet, and takes back what it has given: an address that was there stays.

Whether another machine has one of them is seen elsewhere: duplicates.py. Users: tunnel/interface.py. Sources:
rtnetlink(7), include/uapi/linux/if_addr.h; Linux net/ipv4/devinet.c, net/ipv6/addrconf.c for the errors.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import struct
from collections.abc import Iterable, Iterator, Sequence

from etherws.errors import NET_ADMIN_HINT, DeviceError, printable
from etherws.kernel import bridge_tables, links, netlink
from etherws.kernel.device_errors import device_errors
from etherws.kernel.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST

log = logging.getLogger(__name__)

#: include/uapi/linux/rtnetlink.h
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22

#: struct ifaddrmsg: family, bits of the prefix, flags, scope, index. Attributes (include/uapi/linux/if_addr.h).
_IFADDRMSG = struct.Struct("=BBBBI")
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4

#: include/linux/socket.h; include/uapi/linux/rtnetlink.h, RT_SCOPE_LINK.
AF_INET, AF_INET6, SCOPE_LINK = 2, 10, 253

_HINTS = {
    errno.EPERM: NET_ADMIN_HINT,
    errno.EACCES: "IPv6 is switched off there; sysctl -w net.ipv6.conf.all.disable_ipv6=0 switches it on",
    errno.EOPNOTSUPP: "this kernel has no IPv6, or none for this interface",
    errno.EAFNOSUPPORT: "this kernel has no IPv6, or none for this interface",
    errno.EINVAL: "its MTU may be too small: IPv6 needs 1,280 bytes (--mtu)",
    errno.ENOBUFS: "IPv6 needs an MTU of 1,280 bytes (--mtu)",
    errno.ENODEV: "it is gone; was it deleted, or moved to another network namespace?",
}

Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface

#: The index of an interface, and the addresses that it was given here.
Given = tuple[int, tuple[str, ...]]


class InetAddresses:
    """Those of one interface, or one bridge."""

    def __init__(self, wanted: Sequence[str], given: Given | None = None) -> None:
        """`wanted` are texts such as ``192.0.2.2/24``. `given` is what the process before has given."""
        self._wanted, (self._index, ours) = wanted, given or (0, ())
        self._ours = list(ours)

    @property
    def given(self) -> Given:
        """What is to be taken back, and from which interface."""
        return self._index, tuple(self._ours)

    def put(self, index: int) -> None:
        """Have the interface of this index have them; another one has none of them any more. Raises DeviceError."""
        if index != self._index:
            self._take(self._ours)
            self._index = index
        self._take([text for text in self._ours if text not in self._wanted])
        before = {*self._ours}
        for text in self._wanted:
            with device_errors(f"give {printable(links.name(index)) or 'the interface'} the address {text}", _HINTS):
                try:
                    links.send(request(RTM_NEWADDR, index, text))
                except OSError as exc:
                    # Somebody else has given it, or it is still there.
                    if exc.errno != errno.EEXIST:
                        raise
                else:
                    self._ours = [*(each for each in self._ours if each != text), text]
        if fresh := [text for text in self._ours if text not in before]:
            _warn_of_the_same_network(index, fresh)

    def put_again(self, index: int) -> None:
        """As put(), for an interface that runs: what fails is only logged."""
        try:
            self.put(index)
        except DeviceError as exc:
            log.warning("%s", exc)

    def take_back(self) -> None:
        """Remove what was given."""
        self._take(self._ours)

    def _take(self, texts: Iterable[str]) -> None:
        for text in reversed([*texts]):
            # It is gone already, or its interface is.
            with contextlib.suppress(OSError, ValueError):
                links.send(request(RTM_DELADDR, self._index, text))
            self._ours.remove(text)


def _warn_of_the_same_network(index: int, texts: Iterable[str]) -> None:
    """Warn if another interface of this machine is in the network of one of these addresses: as in a home whose LAN has
    the same one as the office."""
    given = {ipaddress.ip_interface(text).network: text for text in texts}
    try:
        there = [*addresses()]
    except OSError as exc:
        log.debug("whether other interfaces have the same network is not seen: %s", exc.strerror)
        return
    for other, address in there:
        mine = given.get(address.network)
        if other != index and mine and not address.is_link_local:
            log.warning(
                "%s of %s and %s of %s are in the same network: this machine sends what is for it by one of the two"
                " alone. Choose another network for --inet, or put both interfaces into one bridge",
                mine,
                printable(links.name(index)),
                address,
                printable(links.name(other)),
            )


def addresses() -> Iterator[tuple[int, Address]]:
    """The index of an interface, and an address that it has, for all of this machine. Raises OSError."""
    for message in bridge_tables.dump(RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, 0), short=True):
        if message.kind != RTM_NEWADDR or len(message.body) < _IFADDRMSG.size:
            continue
        _, prefix, _, _, index = _IFADDRMSG.unpack_from(message.body)
        values = dict(netlink.attributes(message.body[_IFADDRMSG.size :]))
        # With a peer the other one is the peer's.
        packed = bytes(values.get(IFA_LOCAL, values.get(IFA_ADDRESS, b"")))
        with contextlib.suppress(ValueError):
            yield index, ipaddress.ip_interface((packed, prefix))


def request(kind: int, index: int, text: str) -> bytes:
    """The message that gives the interface this address, or takes it (RTM_NEWADDR, RTM_DELADDR). Raises ValueError."""
    found = ipaddress.ip_interface(text)
    four = found.version == 4
    scope = SCOPE_LINK if found.is_link_local else 0
    body = _IFADDRMSG.pack(AF_INET if four else AF_INET6, found.network.prefixlen, 0, scope, index)
    body += netlink.attribute(IFA_LOCAL, found.packed) + netlink.attribute(IFA_ADDRESS, found.packed)
    if isinstance(found.network, ipaddress.IPv4Network) and found.network.prefixlen < 31:
        body += netlink.attribute(IFA_BROADCAST, found.network.broadcast_address.packed)
    flags = NLM_F_CREATE | NLM_F_EXCL if kind == RTM_NEWADDR else 0
    return links.request(kind, body, NLM_F_REQUEST | NLM_F_ACK | flags)
