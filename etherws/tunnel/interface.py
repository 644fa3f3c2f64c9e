"""The interface that exists from start to stop, whatever its connections do: the client's only one, the server's first.

Makes the TAP and puts it into its bridge, which it makes too if need be. server/ports.py has the server's other TAPs.
Read next: tap.py, which carries frames, and kernel/interfaces.py.
"""

from __future__ import annotations

import logging
from collections.abc import Container

from etherws.errors import DeviceError
from etherws.kernel import interfaces
from etherws.settings import DeviceSettings
from etherws.tunnel.tap import Tap

log = logging.getLogger(__name__)


class Interface:
    """A TAP and its bridge. `tap` is replaced by check() if somebody deletes the device."""

    def __init__(self, settings: DeviceSettings) -> None:
        """Make both. Raises DeviceError; then nothing is left behind."""
        self._settings = settings
        self._made_bridge = bool(settings.bridge) and interfaces.make_bridge(str(settings.bridge))
        try:
            self.tap = self._open()
        except DeviceError:
            self._remove_bridge()
            raise

    def check(self) -> Tap:
        """The TAP; a new one if somebody has deleted it. Raises DeviceError if that cannot be made."""
        if not self.tap.alive():
            self.tap.close()
            self.tap = self._open()
            where = "" if self._settings.bridge else "; put it back into its bridge"
            log.warning("%s had been deleted and is made anew%s", self.tap.name, where)
        return self.tap

    def close(self) -> None:
        """Remove the TAP. Remove the bridge too, if it was made here and no other interface is in it."""
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


def open_tap(pattern: str, bridge: str | None, mtu: int | None, taken: Container[str] = frozenset()) -> Tap:
    """A TAP in `bridge`, unless that is None. For `pattern`, `mtu` and `taken` see Tap.

    Raises DeviceError; then no TAP is left behind.
    """
    tap = Tap(pattern, mtu, taken)
    if bridge:
        try:
            interfaces.join(tap.index, bridge)
        except DeviceError:
            tap.close()
            raise
    return tap
