"""The interface that exists from start to stop, whatever its connections do: the client's only one, the server's first.

Makes the TAP and puts it into its bridge, which it makes too if need be. That bridge, or the TAP if none is named, has
the IP addresses of --inet. server/port_maker.py has the server's other TAPs. Read next: tap.py, which carries frames,
and kernel/bridges.py, which sees that the TAP stays in its bridge.
"""

from __future__ import annotations

import logging

from etherws.errors import DeviceError
from etherws.kernel import interfaces
from etherws.kernel.bridges import Bridges
from etherws.kernel.duplicates import Duplicates
from etherws.kernel.inet import Given, InetAddresses
from etherws.kernel.mac import Addresses
from etherws.kernel.state_folder import StateFolder
from etherws.settings import DeviceSettings
from etherws.tunnel.device_names import DeviceNames
from etherws.tunnel.tap import Tap
from etherws.tunnel.tap_device import Address

log = logging.getLogger(__name__)


class Interface:
    """A TAP and its bridge. `tap` is replaced by check() if somebody deletes the device."""

    def __init__(
        self,
        settings: DeviceSettings,
        kept: Tap | None = None,
        was: tuple[int, str] | None = None,
        *,
        multi_queue: bool = False,
        given: Given | None = None,
    ) -> None:
        """Make both; `multi_queue` is as in Tap. `kept` is the TAP of the process whose place this one takes, and is
        used as it is; `was` is the bridge in which it had that: see Bridges.add(). `given` are the IP addresses that it
        had given. Raises DeviceError; then nothing new is left behind."""
        self._settings, self._multi_queue = settings, multi_queue
        #: Chooses the addresses of interfaces and bridges.
        self.addresses = Addresses(settings.role, settings.link, settings.mac, StateFolder(settings.state_dir))
        self.bridges = Bridges(self._bridge_address)
        #: The IP addresses of --inet.
        self.inet = InetAddresses(settings.inet, given)
        self._duplicates = Duplicates(settings.inet, self._place_of_addresses)
        try:
            made_bridge = False
            if settings.bridge:
                made_bridge = self.bridges.make(
                    settings.bridge, autoconfigure=settings.accept_ra, take_over=kept is not None
                )
            self.tap = kept or self._open()
            if kept:
                self.bridges.add(kept.index, settings.bridge, device=kept, was=was)
            self.bridges.start()
        except DeviceError:
            self.bridges.close()
            raise
        try:
            if place := self._place_of_addresses():
                self.inet.put(place)
        except DeviceError:
            self.inet.take_back()
            self.close()
            raise
        self._warn_of_routers(made_bridge)

    def check(self) -> Tap:
        """The TAP; a new one if somebody has deleted it. Raises DeviceError if that cannot be made."""
        if not self.tap.alive():
            self.tap.close()
            self.tap = self._open()
            wanted = self._settings.bridge
            where = "" if wanted else "; put it back into its bridge"
            if wanted and self.bridges.present(wanted) is None:
                where = f"; {wanted} is gone too, and is joined as soon as it is there again"
            log.warning("%s had been deleted and is made anew%s", self.tap.name, where)
        if self._settings.inet and (place := self._place_of_addresses()):
            self.inet.put_again(place)
        return self.tap

    def connecting(self) -> None:
        """A connection is about to begin: see whether another machine has one of our IP addresses."""
        self._duplicates.begin()

    def close(self) -> None:
        """Remove the TAP, the bridges that were made here and that nobody else uses, and the IP addresses that were
        given here."""
        self._duplicates.close()
        self.inet.take_back()
        self.tap.close()
        self.bridges.close()

    def hand_over(self) -> None:
        """Another process has both from now on: leave all as it is."""
        self._duplicates.close()
        self.tap.release()
        self.bridges.hand_over()

    def _place_of_addresses(self) -> int | None:
        """The index of what has the IP addresses: the bridge that is named, or the TAP; None if it is not here."""
        bridge = self._settings.bridge
        return self.bridges.present(bridge) if bridge else self.tap.locate()

    def _bridge_address(self, name: str) -> str:
        first = name == self._settings.bridge
        return self.addresses.first_bridge(name) if first else self.addresses.further_bridge(name)

    def _open(self) -> Tap:
        pattern = self._settings.device
        wanted = self._settings.bridge
        # If it is gone, the TAP joins it later.
        bridge = self.bridges.present(wanted) if wanted else None
        accept_ra, address = self._settings.accept_ra, self.addresses.first
        mtu, several = self._settings.mtu, self._multi_queue
        tap = open_tap(pattern, bridge, mtu, accept_ra=accept_ra, address=address, multi_queue=several)
        self.bridges.add(tap.index, wanted, device=tap)
        if "%d" in pattern and tap.name != pattern.replace("%d", "0"):
            log.warning("%s is taken; this is %s", pattern.replace("%d", "0"), tap.name)
        return tap

    def _warn_of_routers(self, made_bridge: bool) -> None:
        """Warn if the peers' LAN can configure this machine all the same, by an interface that was made here."""
        made_tap = not self.tap.persistent and not self._settings.bridge
        name = self._settings.bridge if made_bridge else self.tap.name if made_tap else None
        if name and not self._settings.accept_ra and interfaces.accepts_router_advertisements(name):
            log.warning(
                "routers on the far LAN can give this machine IPv6 addresses and routes by %s, and /proc/sys is"
                " read-only; start the container with --sysctl net.ipv6.conf.default.accept_ra=0, or, with the host's"
                " network, set net.ipv6.conf.%s.accept_ra=0 on the host; or start with --accept-ra if you want that",
                name,
                name,
            )


def open_tap(
    pattern: str,
    bridge: int | None,
    mtu: int | None,
    *,
    names: DeviceNames | None = None,
    accept_ra: bool = False,
    address: Address | None = None,
    multi_queue: bool = False,
) -> Tap:
    """A TAP in the bridge of this index, unless that is None. For the rest see Tap.

    Raises DeviceError; then no TAP is left behind.
    """
    tap = Tap(pattern, mtu, names=names, accept_ra=accept_ra, address=address, bridge=bridge, multi_queue=multi_queue)
    if bridge and tap.persistent:
        try:
            before = interfaces.bridge_of(tap.index)
            interfaces.join(tap.index, bridge)
            if before and before != (after := interfaces.bridge_of(tap.index)):
                log.warning("%s was in %s; it is in %s now, the bridge that is named for it", tap.name, before, after)
        except DeviceError:
            tap.close()
            raise
    return tap
