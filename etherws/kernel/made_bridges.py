"""The bridges that etherws has made: made again when somebody deletes them, and removed at the end if nobody uses them.

A bridge that was there before is somebody else's, and is never removed; unless another process of etherws has made it,
as its note says: workers of gunicorn, or one that was killed. The last one that uses it removes it. Read next:
bridges.py, bridge_use.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from etherws.errors import DeviceError
from etherws.kernel import bridge_use, interfaces, links
from etherws.kernel.device_errors import device_errors

log = logging.getLogger(__name__)

#: Seconds after which a bridge that was made here and that somebody has deleted is made again. Whoever restarts the
#: network makes it again within that time, and would fail if it was there already.
REMAKE_DELAY = 3.0


@dataclass
class _Made:
    number: int
    autoconfigure: bool


class MadeBridges:
    """Those of one process, by name."""

    def __init__(self, address: Callable[[str], str] | None = None) -> None:
        """`address` returns the Ethernet address for a new bridge of a name; None leaves it to the kernel."""
        self._address = address
        self._made: dict[str, _Made] = {}
        #: The names of all that this process uses.
        self._used: set[str] = set()

    def make(self, name: str, *, autoconfigure: bool) -> bool:
        """Make the bridge, unless an interface of that name exists; return whether it was made. Raises DeviceError."""
        with device_errors(f"make the bridge {name}", {}):
            if links.find(name) is not None:
                return False
        # The same as before: others on the LAN that talk to this machine by the bridge do not notice.
        address = self._address(name) if self._address else None
        number = interfaces.make_bridge(name, autoconfigure=autoconfigure, address=address)
        if number is not None:
            self._made[name] = _Made(number, autoconfigure)
        return number is not None

    def use(self, name: str | None) -> None:
        """This process uses the bridge of this name, if there is one; another process may have made it."""
        if name:
            self._used.add(name)

    def take_over(self, name: str, *, autoconfigure: bool) -> None:
        """The process whose place this one takes has used the bridge. If it had made it, it counts as made here. Raises
        DeviceError."""
        if number := interfaces.number_if_made_here(name):
            self._made.setdefault(name, _Made(number, autoconfigure))

    def make_again(self, name: str, since: float) -> None:
        """The bridge of this name is gone for `since` seconds: if it was made here, and nobody else makes it again, do
        that. Raises DeviceError."""
        made = self._made.get(name)
        if made is not None and since >= REMAKE_DELAY and self.make(name, autoconfigure=made.autoconfigure):
            log.warning("%s is made again, since nobody else has done so; IP addresses that it had are gone", name)

    def is_now(self, name: str, number: int) -> None:
        """The bridge of this name has this index. If that is another than before, somebody else has made it, and also
        removes it."""
        if name in self._made and self._made[name].number != number:
            del self._made[name]

    def remove(self) -> None:
        """Remove them, and those that another process of etherws has made, but for those that somebody uses."""
        for name in sorted(self._used | self._made.keys()):
            try:
                made = self._made.get(name)
                number = made.number if made else interfaces.number_if_made_here(name)
                users = bridge_use.remove_unless_used(number) if number else ""
            except DeviceError as exc:
                log.error("%s", exc)
                continue
            if users:
                log.warning("%s stays: %s. When nobody needs it any more: ip link del %s", name, users, name)
        self._made.clear()
        self._used.clear()
