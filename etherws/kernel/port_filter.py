"""What a client may do on the LAN, in the kernel: its policy's rules for one port, put in and taken away again.

Nothing here sees a frame. A port has a table of nf_tables of its own, named by it: its chain sees what the client sent
before the bridge learns from it. Shaping and isolation are interfaces.py's; what a client may send per second is not
here but in tunnel/rate_limit.py. docs/policy.rst says what each rule costs. Read next: nftables.py.
"""

from __future__ import annotations

import errno
import logging
import socket
from typing import Protocol

from etherws.errors import DeviceError
from etherws.kernel import interfaces, nftables
from etherws.kernel.device_errors import device_errors
from etherws.kernel.nftables import ACCEPT, JUMP, L4PROTO, LINK, NETWORK, PROTOCOL, RETURN, TRANSPORT, Table

log = logging.getLogger(__name__)

#: Seconds that an address stays one of a client's after its last frame, as in a bridge (br_device.c).
AGEING = 300.0

#: Before the interface's name in a table's. Two servers in one network namespace have no interface in common.
PREFIX = "etherws-"

#: What a client may be kept from sending.
BPDU, DHCP_SERVER, ROUTER_ADVERTISEMENT = "bpdu", "dhcp-server", "router-advertisement"

#: Reasons for drops besides those.
ADDRESS, DISGUISED = "source-address", "disguised"

#: 802.1D and MSTP, the provider bridges' (802.1Q, table 8-1), and Cisco's per VLAN.
_BPDUS = tuple(map(bytes.fromhex, ("0180c2000000", "0180c2000008", "01000ccccccd")))

_IPV4, _IPV6, _VLAN, _QINQ = b"\x08\x00", b"\x86\xdd", b"\x81\x00", b"\x88\xa8"
#: What a frame with a length in place of an EtherType is to the kernel (include/uapi/linux/if_ether.h, ETH_P_802_2).
_LLC = b"\x00\x04"
_SNAP = b"\xaa\xaa\x03"
_UDP, _ICMPV6 = b"\x11", b"\x3a"
_FRAGMENT = 44
_ADVERTISEMENT = b"\x86"
_DHCP_CLIENT, _DHCPV6_CLIENT = (68).to_bytes(2, "big"), (546).to_bytes(2, "big")

#: What the kernel says to what it does not know, depending on what that is.
_UNKNOWN = (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
_NO_TABLES = (
    "it takes Linux 4.18 or later with nf_tables and its netdev family ('modprobe nf_tables'; CONFIG_NF_TABLES_NETDEV)"
)
_HINTS = {
    errno.EPERM: "run as root or with CAP_NET_ADMIN",
    errno.EMSGSIZE: "list fewer addresses",
    **dict.fromkeys(_UNKNOWN, _NO_TABLES),
}

#: The ports that this process has isolated; others may have been by their owner.
_isolated: set[int] = set()


class Rules(Protocol):
    """What of a client's profile the kernel is told (access/policy.py)."""

    @property
    def macs(self) -> int | frozenset[str]:
        """How many source addresses it may have, 0 for any number; or which."""

    @property
    def drop(self) -> frozenset[str]:
        """What is dropped of what it sends: some of the three names above."""

    @property
    def rate_down(self) -> int | None:
        """Bits per second towards it."""

    @property
    def isolated(self) -> bool:
        """Whether it is kept from others that are."""


def check() -> None:
    """Raise DeviceError, with the hint, unless this kernel and this user's rights do for `macs` and `drop`."""
    with device_errors("filter what clients send", _HINTS):
        # Every interface that a namespace is born with.
        _table("lo", 1, frozenset({BPDU, DHCP_SERVER, ROUTER_ADVERTISEMENT})).dry_run()


def sweep() -> None:
    """Remove what is left of ports that are gone, a killed server's too. Others' tables, and other servers', stay.

    Some kernels would keep it for the next interface of that name.
    """
    with device_errors("remove the rules of interfaces that are gone", _HINTS):
        try:
            found = nftables.table_handles()
        except OSError as exc:
            if _without_rules(exc):
                return
            raise
        # In this order: a table is made after its interface.
        present = dict(socket.if_nameindex()).values()
        nftables.remove_by_handle(
            handle
            for table, handle in found.items()
            if table.startswith(PREFIX) and table.removeprefix(PREFIX) not in present
        )


def apply(name: str, index: int, rules: Rules) -> None:
    """Put the rules in for the port, in place of what a former client's left.

    Raises DeviceError, with the hint, if one of them cannot be had; then there are none.
    """
    # Rules for a name that is to come would be no error.
    if (index, name) not in socket.if_nameindex():
        raise DeviceError(f"cannot guard {name}: {name} is gone, or has another name now; give it back its name")
    try:
        if rules.macs != 0 or rules.drop:
            with device_errors(f"filter what comes in by {name}", _HINTS):
                _table(name, rules.macs, rules.drop).install()
        else:
            _remove(name)
        interfaces.set_rate(index, rules.rate_down)
        _isolate(index, rules.isolated)
    except DeviceError:
        clear(name, index)
        raise


def clear(name: str, index: int) -> None:
    """Take away what apply() put in. Nothing is wrong if the port has gone before. Raises DeviceError."""
    present = dict(socket.if_nameindex())
    # A namesake that has come since is another server's.
    if name not in present.values() or present.get(index) == name:
        _remove(name)
    if index in present:
        interfaces.set_rate(index, None)
        _isolate(index, False)
    _isolated.discard(index)


def drops(name: str) -> dict[str, int]:
    """How many frames the rules of the port have dropped since apply(), by reason. Empty if that cannot be told."""
    try:
        return {reason: frames for reason, frames in nftables.frame_counts(PREFIX + name).items() if frames}
    except OSError:
        return {}


def _table(name: str, macs: int | frozenset[str], drop: frozenset[str]) -> Table:
    """The rules of the port. The first that drops or accepts a frame has the last word."""
    table = Table(PREFIX + name)
    table.chain("ingress", name)
    if BPDU in drop:
        for address in _BPDUS:
            table.drop("ingress", BPDU, nftables.load(LINK, 0, 6), nftables.compare(address))
    if drop & {DHCP_SERVER, ROUTER_ADVERTISEMENT}:
        _drop_disguised(table)
        _inspect_ip(table, drop)
    if macs != 0:
        if isinstance(macs, int):
            table.addresses("addresses", macs, AGEING)
            is_known = nftables.add_to_set("addresses")
        else:
            table.addresses("addresses", [bytes.fromhex(address.replace(":", "")) for address in sorted(macs)])
            is_known = nftables.in_set("addresses")
        table.rule("ingress", nftables.load(LINK, 6, 6), is_known, nftables.verdict(ACCEPT))
        table.drop("ingress", ADDRESS)
    return table


def _drop_disguised(table: Table) -> None:
    """No IP behind two VLAN tags, or behind LLC and SNAP headers: some hosts look there, rules do not (VU#855201)."""
    protocol = nftables.load_meta(PROTOCOL)
    for kind in (_VLAN, _QINQ):
        table.drop("ingress", DISGUISED, protocol, nftables.compare(kind))
    table.chain("llc")
    table.rule("ingress", protocol, nftables.compare(_LLC), nftables.verdict(JUMP, "llc"))
    for kind in (_IPV4, _IPV6, _VLAN, _QINQ):
        snap = nftables.load(NETWORK, 0, 3), nftables.compare(_SNAP), nftables.load(NETWORK, 6, 2)
        table.drop("llc", DISGUISED, *snap, nftables.compare(kind))


def _inspect_ip(table: Table, drop: frozenset[str]) -> None:
    protocol, above = nftables.load_meta(PROTOCOL), nftables.load_meta(L4PROTO)
    table.chain("ipv6")
    table.rule("ingress", protocol, nftables.compare(_IPV6), nftables.verdict(JUMP, "ipv6"))
    if DHCP_SERVER in drop:
        # From any port: a client looks at its own only.
        udp_to = above, nftables.compare(_UDP), nftables.load(TRANSPORT, 2, 2)
        # What is at that place in a later fragment is no port.
        first = nftables.load(NETWORK, 6, 2), nftables.mask(b"\x1f\xff"), nftables.compare(bytes(2))
        table.drop(
            "ingress", DHCP_SERVER, protocol, nftables.compare(_IPV4), *first, *udp_to, nftables.compare(_DHCP_CLIENT)
        )
        table.drop("ipv6", DHCP_SERVER, *udp_to, nftables.compare(_DHCPV6_CLIENT))
    if ROUTER_ADVERTISEMENT in drop:
        kind = above, nftables.compare(_ICMPV6), nftables.load(TRANSPORT, 0, 1)
        table.drop("ipv6", ROUTER_ADVERTISEMENT, *kind, nftables.compare(_ADVERTISEMENT))
    # Whatever could be read of the header above IPv6 has been read.
    table.rule(
        "ipv6", nftables.load(TRANSPORT, 0, 4), nftables.compare(bytes(4), nftables.AT_LEAST), nftables.verdict(RETURN)
    )
    # A later fragment has no such header: the first had to have it.
    later = (
        nftables.load_extension(_FRAGMENT, 2, 2),
        nftables.mask(b"\xff\xf8"),
        nftables.compare(bytes(2), nftables.UNEQUAL),
    )
    table.rule("ipv6", above, nftables.compare(bytes(1), nftables.AT_LEAST), *later, nftables.verdict(RETURN))
    # A chain of headers that is broken, or goes on in a later fragment, hides what it leads to (RFC 7113).
    table.drop("ipv6", DISGUISED)


def _isolate(index: int, on: bool) -> None:
    if on:
        interfaces.isolate(index, True)
        _isolated.add(index)
    elif index in _isolated:
        interfaces.isolate(index, False)
        _isolated.discard(index)


def _remove(name: str) -> None:
    with device_errors(f"take the rules of {name} away", _HINTS):
        try:
            nftables.remove(PREFIX + name)
        except OSError as exc:
            if not _without_rules(exc):
                raise


def _without_rules(exc: OSError) -> bool:
    """Whether the kernel, or this user, cannot have rules, so that there are none to remove."""
    return exc.errno in _UNKNOWN or exc.errno == errno.EPERM
