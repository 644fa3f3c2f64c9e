"""The TAP that is there from start to stop, whatever its connections do: the client's only one, the server's first.

What else a server has is in server/ports.py.
"""

from __future__ import annotations

import logging

from etherws.errors import DeviceError
from etherws.kernel import interfaces
from etherws.settings import DeviceSettings
from etherws.tunnel.tap import Tap

log = logging.getLogger(__name__)


class Standing:
    """The TAP that is there from start to stop, and its bridge. A client's only one."""

    def __init__(self, settings: DeviceSettings) -> None:
        """Make both; raises DeviceError, having undone everything."""
        self._settings = settings
        self._made_bridge = bool(settings.bridge) and interfaces.make_bridge(str(settings.bridge))
        try:
            self.tap = self._open()
        except DeviceError:
            self._remove_bridge()
            raise

    def check(self) -> Tap:
        """The TAP; made anew if somebody deleted it. Raises DeviceError if that fails."""
        if not self.tap.alive():
            self.tap.close()
            self.tap = self._open()
            where = "" if self._settings.bridge else "; put it back into its bridge"
            log.warning("%s had been deleted and is made anew%s", self.tap.name, where)
        return self.tap

    def close(self) -> None:
        """Remove the TAP, and the bridge if it was made here, unless others have come to use it."""
        self.tap.close()
        self._remove_bridge()

    def _open(self) -> Tap:
        pattern = self._settings.device
        tap = open_tap(pattern, self._settings.bridge, self._settings.mtu)
        if "%d" in pattern and tap.name != pattern.replace("%d", "0"):
            log.warning("%s is taken; this is %s", pattern.replace("%d", "0"), tap.name)
        return tap

    def _remove_bridge(self) -> None:
        name = self._settings.bridge
        if self._made_bridge and name and not interfaces.remove_if_empty(name):
            log.warning("%s stays: others' interfaces are in it", name)


def open_tap(pattern: str, bridge_name: str | None, mtu: int | None) -> Tap:
    """A TAP by this name or pattern, in this bridge if one is named. Raises DeviceError."""
    tap = Tap(pattern, mtu)
    if bridge_name:
        try:
            interfaces.join(tap.index, bridge_name)
        except DeviceError:
            tap.close()
            raise
    return tap
