"""The server's TAPs: one that stands from start to stop, and one for each further client.

Each is a port of the same Linux bridge, which switches between the clients. Nothing here sees a frame.
"""

from __future__ import annotations

import logging

from gevent.lock import BoundedSemaphore

from etherws import bridge
from etherws.errors import DeviceError, NoPort
from etherws.settings import DeviceSettings
from etherws.tap import Tap

log = logging.getLogger(__name__)


class Ports:
    """Gives each client a TAP: the first the standing one, others a new one in the bridge of the standing one."""

    def __init__(self, settings: DeviceSettings) -> None:
        """Make the standing TAP, and the bridge if one is named; raises DeviceError, having undone everything."""
        self._settings = settings
        self._made_bridge = bool(settings.bridge) and bridge.ensure(str(settings.bridge))
        self._taken: set[Tap] = set()
        self._one_at_a_time = BoundedSemaphore(1)
        try:
            self._standing = self._stand()
        except DeviceError:
            self._remove_bridge()
            raise

    @property
    def name(self) -> str:
        """The standing TAP's name."""
        return self._standing.name

    def take(self) -> Tap:
        """A TAP for one client, until give_back(). Raises NoPort or DeviceError, with the mend."""
        # Making a TAP waits for the kernel: two that came at once would both be given the standing one.
        with self._one_at_a_time:
            tap = self._next()
            self._taken.add(tap)
            return tap

    def give_back(self, tap: Tap) -> None:
        """The client has gone, and with it its TAP unless that is the standing one.

        Raises DeviceError if the standing one was deleted and cannot be made anew.
        """
        self._taken.discard(tap)
        if tap is not self._standing:
            tap.close()
            return
        with self._one_at_a_time:
            self._check_standing()

    def unlinked(self) -> None:
        """Nobody uses the standing TAP at present: its carrier may go in time."""
        self._standing.unlinked(self._settings.carrier_timeout)

    def close(self) -> None:
        """Remove what was made: the standing TAP, and the bridge unless others have come to use it."""
        self._standing.close()
        self._remove_bridge()

    def _next(self) -> Tap:
        if self._standing not in self._taken:
            self._check_standing()
            return self._standing
        name, mtu = bridge.placed(self._standing.index)
        name = self._settings.bridge or name
        if name is None:
            raise NoPort(
                f"{self.name} serves another client and is in no bridge; put it into one"
                f" ('ip link set {self.name} master br0') or start the server with --bridge"
            )
        pattern = self._settings.device
        if "%d" not in pattern:
            pattern = pattern.rstrip("0123456789")[:11] + "%d"
        # The standing TAP's MTU: a bridge's is the least of its ports'.
        return _open(pattern, name, mtu)

    def _stand(self) -> Tap:
        pattern = self._settings.device
        tap = _open(pattern, self._settings.bridge, self._settings.mtu)
        if "%d" in pattern and tap.name != pattern.replace("%d", "0"):
            log.warning("%s is taken; this is %s", pattern.replace("%d", "0"), tap.name)
        return tap

    def _check_standing(self) -> None:
        if self._standing.alive():
            return
        self._standing.close()
        self._standing = self._stand()
        where = "" if self._settings.bridge else "; put it back into its bridge"
        log.warning("%s had been deleted and is made anew%s", self.name, where)

    def _remove_bridge(self) -> None:
        name = self._settings.bridge
        if self._made_bridge and name and not bridge.remove_if_empty(name):
            log.warning("%s stays: others' interfaces are in it", name)


def _open(pattern: str, bridge_name: str | None, mtu: int | None) -> Tap:
    tap = Tap(pattern, mtu)
    if bridge_name:
        try:
            bridge.join(tap.index, bridge_name)
        except DeviceError:
            tap.close()
            raise
    return tap
