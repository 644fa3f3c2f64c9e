"""Two workers in one process: what each gets of the ports that another has, over real sockets and real TAPs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import gevent
import pytest

from etherws.access.policy import Profile
from etherws.errors import NoPort
from etherws.server.port import ClientKey, State
from etherws.server.ports import Ports
from etherws.server.presence import UNKNOWN, Presence
from etherws.settings import ServerSettings
from etherws.workers.datagrams import pair
from etherws.workers.port_server import PortServer
from etherws.workers.remote_port import RemotePort
from etherws.workers.remote_ports import RemotePorts
from etherws.workers.worker_link import WorkerLink
from tests.lab.hosts import PATIENCE, Host

USUAL = Profile()


class Worker:
    """A worker without sessions: one that is told to end parks its port, unless it `stays`."""

    def __init__(self, server: Server) -> None:
        ours, theirs = pair()
        self.link = server.port_server.attach(ours)
        self.ended: list[str] = []
        self.ports = RemotePorts(theirs, self.ended.append)

    def join(
        self, client: ClientKey, profile: Profile = USUAL, *, stays: bool = False, presence: Presence = UNKNOWN
    ) -> RemotePort:
        found: list[RemotePort] = []

        def evict() -> None:
            if not stays:
                gevent.spawn(self.ports.park, found[0])

        found.append(self.ports.take(client, profile, evict, presence))
        return found[0]


class Server:
    """The ports, and two workers."""

    def __init__(self, **settings: object) -> None:
        self.settings = ServerSettings(**{"bridge": "br0", "resume_timeout": 1000.0, **settings})  # type: ignore[arg-type]
        self.ports = Ports(self.settings, self.settings.resume_timeout)
        self.hung: list[WorkerLink] = []
        self.port_server = PortServer(self.ports, self.settings, lambda link, why: self.hung.append(link))
        self.one, self.other = Worker(self), Worker(self)


@pytest.fixture
def server(host: Host) -> Iterator[Server]:
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        made = Server()
        try:
            yield made
        finally:
            for worker in (made.one, made.other):
                worker.ports.close()
            made.port_server.close()
            made.ports.close()
    assert set(host.links()) == {"lo"}


def key(identity: str | None, token: str | None = None) -> ClientKey:
    return ClientKey(identity, token and token * 22, "192.0.2.1")


def test_a_client_that_comes_back_to_another_worker_gets_its_own_port(server: Server) -> None:
    first = server.one.join(key("alice", "a"))
    assert (server.one.ports.name, first.tap.name) == ("ethws0", "ethws0")
    server.one.ports.park(first)
    second = server.one.join(key("bob", "b"))
    assert second.tap.name == "ethws1"
    again = server.other.join(key("alice", "a"))
    assert (again.tap.name, again.tap.index) == (first.tap.name, first.tap.index)
    assert [port.state for port in server.ports] == [State.IN_USE] * 2


def test_one_connection_is_one_at_two_workers(server: Server) -> None:
    first = server.one.join(key("alice"))
    second = server.other.join(key("alice"))
    assert first.state is State.PARKED
    assert second.tap.name == first.tap.name
    assert [port.state for port in server.ports] == [State.IN_USE]


def test_names_never_clash(server: Server) -> None:
    coming = [gevent.spawn(worker.join, key(None)) for _ in range(3) for worker in (server.one, server.other)]
    gevent.joinall(coming, raise_error=True)
    assert {client.get().tap.name for client in coming} == {f"ethws{number}" for number in range(6)}


def test_errors_come_back_as_what_they_are(server: Server) -> None:
    server.one.join(key("alice"), stays=True)
    with contextlib.suppress(NoPort):
        server.other.join(key("alice"))
        raise AssertionError
