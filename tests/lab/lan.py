"""A bridge of three ports, each the near end of a cable, and the filters of its ports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from etherws.errors import DeviceLost
from etherws.kernel import nftables, rules
from etherws.kernel.port_filter import PortFilter
from etherws.kernel.rules import Rules
from tests.lab.hosts import OURS, Frames, Host

#: What is sent after a frame that may not get through.
LAST = (b"\xff" * 6 + OURS + b"\0\0\1\x88\xb5last").ljust(60, b"\0")


def source(number: int) -> bytes:
    return OURS + number.to_bytes(3, "big")


def address(host: Host, name: str = "br0") -> str:
    """The Ethernet address of an interface."""
    return str(host.links()[name].get("address"))


def from_(mac: str) -> bytes:
    """A broadcast from this address."""
    return b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) + b"\x88\xb5".ljust(48, b"\0")


def make_lan(host: Host) -> Host:
    """A bridge br0 of three ports, each the near end of a cable: port, other, third. The far ends are far-port, ..."""
    with host.netlink() as route:
        for name in ("port", "other", "third"):
            route.link("add", ifname=name, kind="veth", peer=f"far-{name}")
    # Theirs would be among the addresses that are learned.
    for name in ("port", "other", "third"):
        for end in (name, f"far-{name}"):
            host.command(f"ip link set {end} addrgenmode none")
            host.set_link(end, state="up")
    host.bridge("br0", "port", "other", "third")
    # Where bridges filter as routers do, they drop packets with wrong checksums, and hold fragments back.
    with host.namespace.inside():
        for path in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
            path.write_text("0")
    return host


def index_of(host: Host, name: str) -> int:
    return int(host.links()[name]["index"])


def addresses(host: Host, name: str) -> set[str]:
    """The IP addresses of an interface, each with its prefix."""
    index = index_of(host, name)
    with host.netlink() as route:
        found = [one for one in route.addr("dump") if one["index"] == index]
        return {f"{one.get_attr('IFA_LOCAL') or one.get_attr('IFA_ADDRESS')}/{one['prefixlen']}" for one in found}


def in_use(host: Host, wanted: Rules, name: str = "port") -> PortFilter:
    """The filter of a port whose client needs these rules and is about to send its first frame."""
    found = PortFilter(index_of(host, name))
    found.need(wanted)
    found.arm()
    return found


@contextlib.contextmanager
def applied(host: Host, wanted: Rules, name: str = "port") -> Iterator[PortFilter]:
    with host.namespace.inside():
        found = in_use(host, wanted, name)
        try:
            yield found
        finally:
            found.clear()


def passes(sender: Frames, receiver: Frames, sent: bytes, last: bytes = LAST) -> bool:
    """Whether a frame gets through; what is sent after it does."""
    sender.send(sent)
    sender.send(last)
    got = [receiver.receive()]
    while got[-1] != last:
        got.append(receiver.receive())
    return sent in got


def learned(host: Host, name: str) -> set[str]:
    """The addresses that the bridge has learned at a port."""
    with host.netlink() as route:
        index = index_of(host, name)
        return {
            str(entry.get_attr("NDA_LLADDR"))
            for entry in route.fdb("dump")
            if entry["ifindex"] == index and entry.get_attr("NDA_LLADDR", "").startswith(OURS.hex(":"))
        }


def tables(host: Host) -> dict[str, int]:
    """Our tables and their handles: a table that was replaced has a new handle."""
    return {name: handle for name, handle in nftables.table_handles().items() if name.startswith(rules.PREFIX)}


class MovableDevice:
    """A TAP for Place that is where the test says: its index here, None in another network namespace; or gone."""

    def __init__(self, where: int | None) -> None:
        self.name, self.where, self.gone = "tap0", where, False

    def locate(self) -> int | None:
        """As Device.locate()."""
        if self.gone:
            raise DeviceLost("tap0 is gone")
        return self.where
