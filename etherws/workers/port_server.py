"""The ports of a server with several workers: this process has them, and lends a port to the worker that asks.

All that is decided about ports is decided by server/ports.py, as without workers; this only carries it to workers and
back. It also counts what is counted once for all: failed logins, the rates and the connections of an identity. A worker
that ends leaves its ports parked. Read next: remote_ports.py, a worker's side; channel.py.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from functools import partial
from time import monotonic

import gevent

from etherws.close_codes import CloseCode
from etherws.errors import ConnectionClosed, DeviceError, EtherwsError
from etherws.server.login_queue import LoginLimiter
from etherws.server.member import Member
from etherws.server.owners import Owner
from etherws.server.port import Port, State
from etherws.server.ports import Ports
from etherws.settings import ServerSettings
from etherws.tunnel.shared_rates import Rates
from etherws.workers.lease import Lease
from etherws.workers.messages import Message
from etherws.workers.worker_link import WorkerLink

log = logging.getLogger(__name__)


class PortServer:
    """Lends ports. The ports themselves belong to who makes this, and stay open."""

    def __init__(
        self,
        ports: Ports,
        settings: ServerSettings,
        on_hung: Callable[[WorkerLink, str], None],
    ) -> None:
        """`on_hung` is called once for a worker that must be ended by force: it does not answer, or is broken; with the
        reason. Until it has ended, its ports are nobody else's."""
        self.ports = ports
        self.settings = settings
        self.on_hung = on_hung
        #: Stays open for as long as the ports: their owners' debts are there.
        self.rates = Rates()
        self.limiter = LoginLimiter()
        self.workers: set[WorkerLink] = set()
        #: Called with what a worker tells: what it has counted, and an event; and when it has ended.
        self.on_counted: Callable[[WorkerLink, Message], None] = lambda link, message: None
        self.on_event: Callable[[WorkerLink, Message], None] = lambda link, message: None
        self.on_ended: Callable[[WorkerLink], None] = lambda link: None
        #: Whether somebody goes on to listen on one of these sockets, by their inodes, when a worker ends.
        self.stays: Callable[[list[int]], bool] = lambda sockets: False

    def attach(self, sock: socket.socket, pid: int | None = None) -> WorkerLink:
        """Serve the worker at the other end of this socket, one of datagrams.pair(), until it ends. `pid` is its
        process, for the log and for on_hung()."""
        link = WorkerLink(self, sock, pid)
        self.workers.add(link)
        return link

    def stop(self, *, handing_over: bool = False) -> None:
        """Tell all workers that the server is stopping; with `handing_over`, that another process takes over at once.
        They end their sessions, and then themselves."""
        for link in self.workers:
            link.channel.tell("stop", {"handing_over": handing_over})

    def reload(self) -> None:
        """Have all workers read their files again."""
        for link in self.workers:
            link.channel.tell("reload", {})

    def close(self) -> None:
        """Serve nobody any more."""
        for link in list(self.workers):
            link.channel.close()
        self.workers.clear()

    def ended(self, link: WorkerLink) -> None:
        """The worker has ended: keep its ports for its clients, however many they are."""
        self.workers.discard(link)
        self.on_ended(link)
        for lease in list(link.leases.values()):
            gevent.spawn(self.give_back, lease, partial(self.ports.park, taken_over=True))

    def give_back(self, lease: Lease, verb: Callable[[Port | Member], None]) -> None:
        """Park or free the port of a lease, unless it is another's already."""
        if not lease.valid():
            return
        client = lease.port.client
        lease.port.tap.start_carrier_timeout(self.settings.carrier_timeout)
        try:
            verb(lease.port)
        except DeviceError as exc:
            log.error("%s", exc)
        # To be free may wait for a turn: by now it may be parked for another client.
        if lease.port.state is State.PARKED and lease.port.client is client:
            lease.since = lease.port.since

    def slot(self, owner: Owner | None) -> int:
        """Where the debt of the rate of this owner is. Raises NoPort."""
        assert owner is not None
        if owner.slot is None:
            owner.slot = self.rates.new(owner.paid)
        return owner.slot.number

    def end_surplus(self, identity: str | None, connections: int) -> None:
        """An identity may have so many connections now: of more, end those that Ports.take() would take. A worker sees
        only its own."""
        if identity is None:
            return
        same = [
            port
            for port in self.ports
            if port.client.identity == identity and port.state in (State.IN_USE, State.PARKED) and not port.leaving
        ]
        same.sort(key=lambda port: (port.state is State.IN_USE, port.since))
        for port in same[: max(0, len(same) - connections)]:
            if port.state is State.PARKED:
                gevent.spawn(self._free, port)
            else:
                port.fail(ConnectionClosed("the policy allows fewer connections", CloseCode.POLICY_VIOLATION))

    def lease_of(self, port: Port | Member) -> Lease | None:
        """The lease by which a worker's session uses this port, or this part of it."""
        for link in self.workers:
            for lease in link.leases.values():
                if lease.port is port and lease.valid():
                    return lease
        return None

    def _free(self, port: Port) -> None:
        try:
            self.ports.free(port)
        except EtherwsError as exc:
            log.error("%s", exc)

    def login_wait(self, address: str) -> float:
        """As LoginLimiter.wait(), for all workers."""
        return self.limiter.wait(address, monotonic())

    def login_failed(self, address: str) -> None:
        """As LoginLimiter.failed()."""
        self.limiter.failed(address, monotonic())
