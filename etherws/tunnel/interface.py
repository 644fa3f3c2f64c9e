"""The interface that exists from start to stop, whatever its connections do: the client's only one, the server's first.

Makes the TAP and puts it into its bridge, which it makes too if need be. server/port_maker.py has the server's other
TAPs. Read next: tap.py, which carries frames, and kernel/bridges.py, which sees that the TAP stays in its bridge.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Container
from typing import NamedTuple

from etherws.errors import DeviceError
from etherws.kernel import interfaces
from etherws.kernel.bridges import Bridges
from etherws.settings import DeviceSettings
from etherws.tunnel.tap import Tap

log = logging.getLogger(__name__)

#: Bytes: what the kernel gives a TAP, ETH_DATA_LEN of include/uapi/linux/if_ether.h.
MTU = 1500


class Found(NamedTuple):
    """A TAP that the last process has left, and what it was told of it: the fields of DeviceSettings."""

    tap: Tap
    device: str
    bridge: str | None
    mtu: int | None
    accept_ra: bool


class Interface:
    """A TAP and its bridge. `tap` is replaced by check() if somebody deletes the device."""

    def __init__(self, settings: DeviceSettings, found: Found | None = None) -> None:
        """Make both, or go on with what was `found`. Raises DeviceError; then nothing is left behind."""
        self._settings = settings
        self.bridges = Bridges()
        try:
            made_bridge = False
            if settings.bridge:
                made_bridge = self.bridges.make(
                    settings.bridge, autoconfigure=settings.accept_ra, take_over=found is not None
                )
            self.tap = self._adopted(found) if found and _fits(found, settings) else self._open()
            self.bridges.start()
        except DeviceError:
            self.bridges.close()
            raise
        if not found:
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
        return self.tap

    def close(self) -> None:
        """Remove the TAP, and the bridges that were made here and that nobody else uses."""
        self.tap.close()
        self.bridges.close()

    def leave(self) -> None:
        """Another process goes on with the TAP and the bridges: leave them as they are."""
        self.tap.leave()
        self.bridges.close(handing_over=True)

    def _adopted(self, found: Found) -> Tap:
        """The TAP that was found. What the user has told anew of MTU and bridge is done; the rest stays as it is."""
        tap, wanted = found.tap, self._settings.bridge
        if index := tap.locate():
            if self._settings.mtu != found.mtu:
                interfaces.set_mtu(index, self._settings.mtu or MTU)
            before = interfaces.bridge_of(index)
            if wanted and (wanted != found.bridge or not before):
                # It may have been there while nobody watched: somebody has made its bridge anew.
                if bridge := self.bridges.present(wanted):
                    interfaces.join(index, bridge)
            elif found.bridge and before == found.bridge != wanted:
                interfaces.leave_bridge(index)
        self.bridges.add(tap.index, wanted, device=tap)
        log.info("%s was kept, and goes on", tap.name)
        return tap

    def _open(self) -> Tap:
        pattern = self._settings.device
        wanted = self._settings.bridge
        # If it is gone, the TAP joins it later.
        bridge = self.bridges.present(wanted) if wanted else None
        tap = open_tap(pattern, bridge, self._settings.mtu, accept_ra=self._settings.accept_ra)
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
                " read-only; start the container with --sysctl net.ipv6.conf.default.accept_ra=0, or with"
                " --accept-ra if you want that",
                name,
            )


def _fits(found: Found, settings: DeviceSettings) -> bool:
    """Whether the TAP can be the one of these settings; if not, it is closed."""
    if found.device != settings.device and not _matches(found.tap.present_name(), settings.device):
        log.warning("%s is removed: --device is %s now", found.tap.name, settings.device)
    elif found.accept_ra != settings.accept_ra and not found.tap.persistent:
        log.warning("%s is made anew: --accept-ra has changed", found.tap.name)
    else:
        return True
    found.tap.close()
    return False


def _matches(name: str, pattern: str) -> bool:
    """Whether this is a name of the pattern."""
    return re.fullmatch("[0-9]+".join(map(re.escape, pattern.split("%d", 1))), name) is not None


def open_tap(
    pattern: str,
    bridge: str | int | None,
    mtu: int | None,
    *,
    taken: Container[str] = frozenset(),
    accept_ra: bool = False,
) -> Tap:
    """A TAP in the bridge of this name or index, unless that is None. For the rest see Tap.

    Raises DeviceError; then no TAP is left behind.
    """
    tap = Tap(pattern, mtu, taken=taken, accept_ra=accept_ra)
    if bridge:
        try:
            before = interfaces.bridge_of(tap.index) if tap.persistent else ""
            interfaces.join(tap.index, bridge)
            if before and before != (after := interfaces.bridge_of(tap.index)):
                log.warning("%s was in %s; it is in %s now, the bridge that is named for it", tap.name, before, after)
        except DeviceError:
            tap.close()
            raise
    return tap
