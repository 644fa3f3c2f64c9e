"""What bridges.py needs of an interface of ours that is in a bridge: where it is, in which one, and how it joins one.

PortFilter (port_filter.py) is one such port, with the rules of a client; PlainPort is one without rules. Read next:
place.py, bridges.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from etherws.kernel import interfaces, links
from etherws.kernel.membership import Membership, Seen, State
from etherws.kernel.place import Device, Place


class Port(Protocol):
    """What must know that an interface is in no bridge for a while, and how it joins."""

    #: Where the interface is. It is asked once the kernel tells that it is gone.
    place: Place

    def bridge_is_away(self) -> None:
        """The bridge is gone; join() follows when it is there again."""

    def join(self, bridge: int) -> None:
        """Put the interface into the bridge of this index. Raises DeviceError."""


class PlainPort:
    """An interface without rules."""

    def __init__(self, index: int, device: Device | None = None) -> None:
        """As Place."""
        self.place = Place(index, device)

    def bridge_is_away(self) -> None:
        """Nothing follows: nobody is kept from this interface."""

    def join(self, bridge: int) -> None:
        """As Port.join()."""
        interfaces.join(self.place.index, bridge)


def seen(
    link: links.Link,
    member: Membership,
    find: Callable[[int | str], links.Link | None],
    name_of: Callable[[int], str],
) -> Seen:
    """What the kernel says now about an interface's bridge, for Membership.look(). `find` is as links.find(), `name_of`
    as links.name()."""
    if link.master and (name := name_of(link.master)):
        return Seen(link.up, link.master, name, bridge_exists=True, namesake=0)
    namesake = find(member.name) if member.state is State.AWAY else None
    exists = bool(member.bridge) and find(member.bridge) is not None
    return Seen(link.up, 0, "", exists, namesake.number if namesake else 0)
