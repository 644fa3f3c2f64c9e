"""Ports of one server, and two workers that are given them, all in this process, over real sockets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import gevent

from etherws.access.policy import Profile
from etherws.features import Membership
from etherws.server.port import ClientKey
from etherws.server.ports import Ports
from etherws.server.presence import UNKNOWN, Presence
from etherws.settings import ServerSettings
from etherws.tunnel.wire import VNET_BYTES
from etherws.workers.datagrams import pair
from etherws.workers.port_server import PortServer
from etherws.workers.remote_port import RemotePort
from etherws.workers.remote_ports import RemotePorts
from etherws.workers.worker_link import WorkerLink
from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import PATIENCE, Host
from tests.lab.lan import source

USUAL = Profile()


class LentPorts:
    """A worker whose sessions do nothing but end: one that is told to parks its port, unless it `stays`."""

    def __init__(self, port_server: PortServer) -> None:
        ours, theirs = pair()
        self.link = port_server.attach(ours)
        self.ended: list[str] = []
        self.evicted: list[RemotePort] = []
        self.ports = RemotePorts(theirs, self.ended.append)

    def join(
        self,
        client: ClientKey,
        profile: Profile = USUAL,
        *,
        stays: bool = False,
        presence: Presence = UNKNOWN,
        membership: Membership | None = None,
    ) -> RemotePort:
        """A client comes."""
        found: list[RemotePort] = []

        def evict() -> None:
            self.evicted += found
            if not stays:
                gevent.spawn(self.ports.park, found[0])

        found.append(self.ports.take(client, profile, evict, presence, membership))
        return found[0]


class Lender:
    """The ports, and two workers."""

    def __init__(self, resume_timeout: float = 1000.0, carrier_timeout: float = 30.0) -> None:
        self.settings = ServerSettings(
            bridge="br0", resume_timeout=resume_timeout, carrier_timeout=carrier_timeout, ping_interval=0
        )
        self.ports = Ports(self.settings, self.settings.resume_timeout)
        self.hung: list[tuple[WorkerLink, str]] = []
        self.server = PortServer(self.ports, self.settings, lambda link, why: self.hung.append((link, why)))
        self.one, self.other = LentPorts(self.server), LentPorts(self.server)

    def close(self) -> None:
        """Remove everything."""
        for worker in (self.one, self.other):
            worker.ports.close()
        self.server.close()
        self.ports.close()
        self.server.rates.close()


@contextlib.contextmanager
def lending(host: Host, resume_timeout: float = 1000.0, carrier_timeout: float = 30.0) -> Iterator[Lender]:
    """All of that, in this machine."""
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        made = Lender(resume_timeout, carrier_timeout)
        try:
            yield made
        finally:
            made.close()
    assert set(host.links()) == {"lo"}


def key(identity: str | None, token: str | None = None, address: str = "192.0.2.1") -> ClientKey:
    """A client; one letter is a token."""
    return ClientKey(identity, token and token * 22, address)


def send(port: RemotePort, *numbers: int) -> None:
    """Have the port's client send a frame from each of these addresses."""
    sink = port.sink()
    for number in numbers:
        sink.write_batch([bytes(VNET_BYTES) + frame(60, to=BROADCAST, source=source(number))])


def soon(condition: object) -> None:
    """Wait until this function returns something true, and let others run."""
    assert callable(condition)
    while not condition():
        gevent.sleep(0.001)
