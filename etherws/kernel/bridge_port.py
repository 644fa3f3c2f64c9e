"""What bridges.py needs of an interface of ours that is in a bridge: where it is, and how it joins one.

PortFilter (port_filter.py) is one such port, with the rules of a client; PlainPort is one without rules. Read next:
place.py, bridges.py.
"""

from __future__ import annotations

from typing import Protocol

from etherws.kernel import interfaces
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
