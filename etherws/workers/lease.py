"""A port that a worker has, or what one connection of a link has of it: by a number that only this worker may use.

Users: worker_link.py, which has a worker's leases; port_server.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gevent

from etherws.errors import EtherwsError
from etherws.server.member import Member
from etherws.server.port import Port, State
from etherws.workers.messages import error_values

if TYPE_CHECKING:
    from etherws.workers.worker_link import WorkerLink


class Lease:
    """A port that a worker has, or that is parked for a client of its. Numbers are never used twice."""

    def __init__(self, link: WorkerLink, number: int) -> None:
        self.link, self.number = link, number
        #: The port, or what one connection of a link has of it.
        self.port: Port | Member
        #: When the port came into its present state; another time means that it is another's.
        self.since = 0.0
        self._evicting = False

    def valid(self) -> bool:
        """Whether the port is still this worker's, or parked since this worker gave it back."""
        return self.port.since == self.since and self.port.state in (State.IN_USE, State.PARKED)

    def begin(self, port: Port | Member) -> None:
        """The worker has been given this port."""
        self.port, self.since = port, port.since

    def evict(self) -> None:
        """Another session is to have the port: have the worker end its own. Does not wait for that."""
        if not self._evicting:
            self._evicting = True
            gevent.spawn(self.link.evict, self)

    def fail(self, reason: EtherwsError) -> None:
        """End the worker's session for this reason."""
        self.link.channel.tell("failure", {"port": self.number, **error_values(reason)})

    def hold(self) -> None:
        """The rules of the port are not in force: no frame may pass before the worker has asked for them again."""
        self.link.channel.tell("hold", {"port": self.number})

    def retire(self) -> None:
        """Another connection of the link takes the place of the worker's."""
        self.link.channel.tell("retire", {"port": self.number})

    def evicted(self) -> None:
        """The worker knows that the session is to end."""
        self._evicting = False
