"""When a server runs the programs of --up, --down and --change, or those that a client's policy names.

Up: a client gets an interface. Down: that is not its own any more. What is between is a change: its connection is lost,
it comes back, its policy has changed. Ports of the last process are up already. Read next: hooks/queue.py;
port_maker.py, which tells of each change.
"""

from __future__ import annotations

from typing import NamedTuple

from etherws.access.policy import Profile
from etherws.hooks.facts import CHANGE, CONNECTED, DOWN, LEFT, LOST, POLICY, UP, Facts
from etherws.hooks.queue import Hooks
from etherws.server.port import ClientKey, Port, State
from etherws.settings import DeviceSettings


class _Known(NamedTuple):
    """What the last program of a port was told."""

    client: ClientKey
    profile: Profile
    state: State
    facts: Facts


class PortHooks:
    """Those of all ports."""

    def __init__(self, settings: DeviceSettings, hooks: Hooks | None = None) -> None:
        """Raises SettingsError if a program cannot be run."""
        self._settings, self._hooks = settings, hooks or Hooks(settings)
        self._known: dict[Port, _Known] = {}

    def take_over(self, port: Port) -> None:
        """The last process has run that of --up for this port."""
        self._known[port] = self._describe(port)

    def note(self, port: Port) -> None:
        """The port is new, or has another state, client or profile."""
        known, now = self._known.get(port), self._describe(port)
        if now.state not in (State.IN_USE, State.PARKED):
            self.gone(port)
            return
        if known and known.client != now.client:
            self.gone(port)
            known = None
        self._known[port] = now
        own = now.profile
        if known is None:
            self._hooks.add(UP, CONNECTED, now.facts, own.up)
        elif known.state is not now.state:
            self._hooks.add(CHANGE, LOST if now.state is State.PARKED else CONNECTED, now.facts, own.change)
        elif known.profile != now.profile:
            self._hooks.add(CHANGE, POLICY, now.facts, own.change)

    def gone(self, port: Port) -> None:
        """The port has no client any more, or is gone itself."""
        if known := self._known.pop(port, None):
            self._hooks.add(DOWN, LEFT, known.facts, known.profile.down)

    def close(self) -> None:
        """Wait until all programs have ended, some seconds at most."""
        self._hooks.finish()

    def _describe(self, port: Port) -> _Known:
        client, bridge = port.client, port.origin.bridge or ""
        facts = Facts("server", port.tap.name, bridge, client.address, client.identity or "", self._settings.inet)
        return _Known(client, port.profile, port.state, facts)
