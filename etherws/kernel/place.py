"""Where the interface of a port is: in this network namespace or in another one, and under which name.

A TAP may be moved to another network namespace, for a container. Then its name and its index are those of nobody here,
or of others. Whoever acts on the interface asks name() before. Read next: port_filter.py, port_settings.py.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Protocol

from etherws.errors import DeviceError, DeviceLost
from etherws.kernel import interfaces, port_tables

log = logging.getLogger(__name__)


class Device(Protocol):
    """What is needed of a TAP."""

    name: str

    def locate(self) -> int | None:
        """The present index of its interface; None while that is in another network namespace. Raises DeviceLost once
        it is gone, DeviceError if that cannot be told."""


class Place:
    """One interface. `index` is its index when it was last looked at."""

    def __init__(self, index: int, device: Device | None = None) -> None:
        """Without a `device` the interface stays here, under its index."""
        self.index = index
        self._device = device
        #: Whether another port of ours has a table of this name.
        self.is_taken: Callable[[str], bool] = lambda _: False
        #: Whether the log says that it is in another network namespace.
        self._warned = False

    @property
    def label(self) -> str:
        """The interface's last name, for the log."""
        return self._device.name if self._device else f"interface {self.index}"

    def is_here(self) -> bool:
        """Whether the interface is in this network namespace. Raises DeviceError if it is gone."""
        if self._device is not None:
            index = self._device.locate()
            self.index = index or self.index
            return index is not None
        return True

    def is_away(self) -> bool:
        """Whether the interface is in another network namespace, as far as this can be told."""
        try:
            return not self.is_here()
        except DeviceError:
            return False

    def name(self) -> str:
        """The interface's present name; empty while it is in another network namespace. Raises DeviceError if it is
        gone."""
        if not self.is_here():
            return ""
        self._warned = False
        return interfaces.name_of(self.index)

    def warn_away(self) -> None:
        """Say, once for each time that the interface is moved away, that no rule holds there."""
        if not self._warned:
            log.warning("%s is in another network namespace: nothing is enforced there", self.label)
        self._warned = True

    def exists(self) -> bool:
        """Whether the interface is here or in another network namespace."""
        try:
            return not self.is_here() or bool(_name_of(self.index))
        except DeviceLost:
            return False

    def remove_table(self, name: str) -> None:
        """Remove the table of the interface, which has or had this name. Raises DeviceError."""
        # Another interface of that name may have come since. Then the table is its own, unless ours has just been
        # moved away: some kernels apply our table to that.
        others = port_tables.is_present(name) and (_name_of(self.index) != name or self.is_away())
        if name and (not others or (self.is_away() and not self.is_taken(name))):
            port_tables.remove_table(name)


def _name_of(index: int) -> str:
    """The name of the interface of this index here; empty if there is none. To read the names of all takes milliseconds
    for a thousand."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
