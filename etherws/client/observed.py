"""A client as observe/ sees it: a Subject (observe/subject.py) of the one link.

It only reads what is there: link_state.py, the sessions, the interface. What it is told to do it does by the signals
that do the same. A client has no clients, so it can neither end one nor drain. Read next: reconnect.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import gevent

from etherws import __version__
from etherws.client.link_state import CONNECTED, CONNECTING
from etherws.client.reconnect import Client
from etherws.counters import Values
from etherws.errors import DeviceError, NoSuchClient
from etherws.kernel import bridge_states, service_manager
from etherws.kernel.bridge_tables import Behind, BridgeTables
from etherws.tunnel.session import totals_now

_NOTHING = Behind(None, [], 0)

#: Seconds until the signal that ends this process: its asker gets an answer first.
STOP_DELAY = 0.1


class ObservedClient:
    """Shows a client, and has it do what SIGHUP and SIGINT have it do."""

    role = "client"

    def __init__(self, client: Client) -> None:
        self._client = client
        self._tables = BridgeTables(lambda: [client.local.tap.index] if client.local else [])
        self._began = time.time()

    def overview(self) -> Values:
        """All of the status but the session."""
        device, _, behind = self._interface()
        link = self._client.link
        state = link.state
        if state == CONNECTED and self._client.members is None:
            # It has ended a moment ago.
            state = CONNECTING
        return {
            "schema": 1,
            "role": self.role,
            "name": service_manager.instance(self.role) or device,
            "version": __version__,
            "pid": os.getpid(),
            "started": self._began,
            "now": time.time(),
            "state": state,
            "device": device,
            "bridge": behind.bridge,
            "link": link.values(),
            "warnings": [*link.warnings, *self._members(), *self._lan()],
            "totals": self.totals(),
        }

    def totals(self) -> Values:
        """As Subject.totals()."""
        return totals_now(self._client.totals).values()

    def sessions(self) -> Iterator[Values]:
        """The session, if there is one: that of all connections of the link together."""
        members, local = self._client.members, self._client.local
        if members is None or local is None or not (values := members.counts.status()):
            return
        device, index, behind = self._interface()
        link = self._client.link
        yield {
            **values,
            "server": link.server,
            "address": self._client.address or None,
            "proxy": link.proxy or None,
            "device": device,
            "index": index,
            "bridge": behind.bridge,
            "worker": None,
            "reconnects": link.reconnects,
            "macs": behind.macs,
            "macs_more": behind.more,
            "policy": None,
        }

    def parked(self) -> Iterator[Values]:
        """Nothing: only a server keeps ports for others."""
        return iter(())

    def history(self, index: int) -> Values:
        """The last ten minutes of the session. Raises NoSuchClient if there is none, or not on this interface."""
        members, local = self._client.members, self._client.local
        if members is None or local is None or local.tap.index != index or not (values := members.counts.history()):
            raise NoSuchClient(f"no session is on the interface with the index {index}; see 'etherws status'")
        return values

    def not_ready(self) -> str:
        """Why nothing passes, in words; empty while it is connected."""
        return self._client.link.not_ready()

    def kick(self, client: str, seconds: float, door: str) -> list[str]:
        """Raises NoSuchClient: a client has no clients."""
        raise NoSuchClient("this is a client, which has no clients; etherws stop ends it")

    def reload(self) -> None:
        """Connect at once, or check the connection: as SIGHUP."""
        os.kill(os.getpid(), signal.SIGHUP)

    def stop(self) -> None:
        """End for good, a moment after this has returned: as SIGINT, so that nothing is kept for a next process."""
        gevent.spawn_later(STOP_DELAY, os.kill, os.getpid(), signal.SIGINT)

    def drain(self, seconds: float, door: str) -> None:
        """Raises NoSuchClient. To end its one link slowly would make no difference to a stop."""
        raise NoSuchClient("this is a client, which has no clients to drain; etherws stop ends it")

    def _members(self) -> list[str]:
        """What is wrong with the connections of the link."""
        members = self._client.members
        return [members.log.trouble] if members and members.log.trouble else []

    def _lan(self) -> list[str]:
        """What is wrong with the LAN at this end."""
        local = self._client.local
        if local is None:
            return []
        found = local.loops.going_on()
        with contextlib.suppress(DeviceError, OSError):
            if index := local.tap.locate():
                found += bridge_states.troubles(bridge_states.ports_now({index}), {index: ""})
        return found

    def _interface(self) -> tuple[str, int, Behind]:
        """The name and index of the interface, and what is behind it; the name is empty while it is in another network
        namespace."""
        if self._client.local is None:
            return "", 0, _NOTHING
        tap = self._client.local.tap
        with contextlib.suppress(DeviceError):
            if index := tap.locate():
                return tap.name, index, self._tables.look().get(index, _NOTHING)
        return "", tap.index, _NOTHING
