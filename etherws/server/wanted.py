"""What a client wants that asks for a port, and which port it has already.

Nothing here changes a port. Read next: ports.py, which gives ports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from etherws.access.policy import Profile
from etherws.features import Membership
from etherws.server.port import ClientKey, Port, State
from etherws.server.port_table import PortTable


class Wanted(NamedTuple):
    """What Ports.take() is asked for."""

    client: ClientKey
    profile: Profile
    evict: Callable[[], None]
    membership: Membership | None

    @property
    def queues(self) -> bool:
        """Whether the port is for several connections."""
        return self.membership is not None and self.membership.of > 1

    def own(self, ports: PortTable) -> Port | None:
        """The one of the ports that the client has already, or takes from another client of its identity. Raises
        NoPort if they take it from each other again and again."""
        client = self.client
        if client == ClientKey():
            return None
        found = ports.of_client(client) if client.resume is not None else None
        same = ports.of_identity(client.identity) if found is None and client.identity is not None else []
        if same and len(same) >= self.profile.connections:
            # A parked one rather than one in use; of these the one that has been so for longest.
            found = min(same, key=lambda port: (port.state is State.IN_USE, port.since))
            if found.state is State.IN_USE:
                found.count_change()
        return found
