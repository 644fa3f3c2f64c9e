"""A bridge's port and its filter: put rules in force, and see which frames get through."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from etherws.kernel.port_filter import PortFilter
from etherws.kernel.rules import Rules
from tests.lab.hosts import Frames, Host
from tests.lab.packets import frame


def index_of(host: Host, name: str) -> int:
    """The number of this interface."""
    return int(host.links()[name]["index"])


def in_use(host: Host, wanted: Rules, name: str = "port") -> PortFilter:
    """The filter of a port whose client needs these rules and is about to send its first frame."""
    found = PortFilter(index_of(host, name))
    found.need(wanted)
    found.arm()
    return found


@contextlib.contextmanager
def applied(host: Host, wanted: Rules, name: str = "port") -> Iterator[PortFilter]:
    """The rules in force for the block; see in_use()."""
    with host.namespace.inside():
        found = in_use(host, wanted, name)
        try:
            yield found
        finally:
            found.clear()


def passes(sender: Frames, receiver: Frames, sent: bytes, last: bytes = frame(b"\x88\xb5last")) -> bool:
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
            if entry["ifindex"] == index and entry.get_attr("NDA_LLADDR", "").startswith("02:ee")
        }
