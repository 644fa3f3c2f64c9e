"""Makes the server's ports and closes them: a TAP in its bridge, with a filter, and somebody who watches both.

Which client gets which port, and when, is decided in ports.py. Read next: tunnel/interface.py (the first port's TAP),
kernel/bridges.py (which bridge a port is in), kernel/kernel_filters.py (what its client may do).
"""

from __future__ import annotations

from collections.abc import Container

from etherws.access.policy import Profile
from etherws.errors import DeviceError, NoPort
from etherws.kernel import interfaces
from etherws.kernel.kernel_filters import KernelFilters
from etherws.kernel.rules import Rules
from etherws.server.port import Port, rules_of
from etherws.settings import DeviceSettings
from etherws.tunnel.interface import Interface, open_tap
from etherws.tunnel.tap import Tap


class PortMaker:
    """What all ports of a server have in common: the settings, the bridges, and the kernel's filters."""

    def __init__(self, settings: DeviceSettings) -> None:
        """Make the first port, `first`. Raises DeviceError; then nothing is left behind."""
        self._settings = settings
        self._interface = Interface(settings)
        self._bridges = self._interface.bridges
        self._kernel_filters = KernelFilters(self._bridges.links)
        self.first = self._port(self._interface.tap, settings.bridge)

    @property
    def name(self) -> str:
        """The name of the first port's interface."""
        return self._interface.tap.name

    def rules(self, profile: Profile) -> Rules:
        """What the kernel is to enforce for this profile. Raises DeviceError if it cannot."""
        return self._kernel_filters.possible(rules_of(profile))

    def is_only_port(self) -> bool:
        """Whether there can be no port but the first: nobody knows a bridge for another."""
        return not self._settings.bridge and not self._bridges.belongs(self.first.tap.index)

    def new(self, profile: Profile, taken: Container[str], refusal: DeviceError | None = None) -> Port:
        """A further port, whose interface has none of the names in `taken`. `refusal` is why the first port cannot be
        used, if so. Raises NoPort and DeviceError."""
        # Nothing is known of an interface in another network namespace.
        index = self._interface.tap.locate()
        wanted = profile.bridge or self._settings.bridge
        bridge = self._bridges.place(wanted, index or 0)
        if bridge is None and wanted:
            self._bridges.make(wanted, autoconfigure=self._settings.accept_ra)
            bridge = self._bridges.place(wanted, index or 0)
        if bridge is None:
            raise refusal or NoPort(
                f"{self.name} serves another client and is in no bridge; put it into one"
                f" ('ip link set {self.name} master br0') or start the server with --bridge"
            )
        pattern = profile.device or self._settings.device
        if "%d" not in pattern and pattern in taken:
            # Linux allows 15 bytes (IFNAMSIZ); up to 4 are for the number.
            pattern = pattern.rstrip("0123456789")[:11] + "%d"
        # The first port's MTU, since a bridge has the lowest of its ports'.
        mtu = profile.mtu or (interfaces.mtu_of(index) if index else self._settings.mtu)
        return self._port(
            open_tap(pattern, bridge, mtu, taken=taken, accept_ra=self._settings.accept_ra),
            wanted,
        )

    def renew_first(self) -> bool:
        """If somebody has deleted the first port's TAP, make a new first port, and return True. Raises DeviceError."""
        tap = self._interface.check()
        if tap is self.first.tap:
            return False
        self.first.filter.forget()
        self.first = self._port(tap, self._settings.bridge)
        return True

    def close_port(self, port: Port) -> None:
        """Remove a port that is not the first. It is gone already."""
        self._bridges.forget(port.tap.index)
        port.withdraw()
        port.tap.close()
        self._kernel_filters.remove_stale_tables_soon()

    def close(self) -> None:
        """Remove the first port, and the bridges that were made here unless others use them."""
        self._interface.close()
        self._kernel_filters.close()

    def _port(self, tap: Tap, wanted: str | None) -> Port:
        port = Port(tap, self._kernel_filters.port_filter(tap.index, tap))
        self._bridges.add(tap.index, wanted, port.filter)
        return port
