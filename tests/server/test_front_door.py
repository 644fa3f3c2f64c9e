"""Those who connect and say nothing, in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer

from etherws.addresses import Networks, peer
from etherws.server import lobby
from etherws.server.lobby import LobbyMixin
from tests.lab.hosts import Host, Process, until
from tests.lab.peer import Peer
from tests.lab.pki import Certificate
from tests.lab.servers import gunicorn


def serve(kind: str, host: Host, certificate: Certificate) -> Process:
    """A server on port 80."""
    if kind == "gunicorn":
        running = gunicorn(host, "-b", "0.0.0.0:80")
        running.says("Booting worker")
        until(lambda: "ethws0" in host.links(), "ethws0 to appear")
        return running
    tls = ["--keyfile", str(certificate.key), "--certfile", str(certificate.cert)] if kind == "tls" else []
    running = host.etherws("server", "--foreground", "--port", "80", *tls)
    running.says("listening")
    return running


@pytest.mark.parametrize("kind", ["plain", "tls", "gunicorn"])
def test_one_address_has_so_many_connections_that_wait(
    hosts: tuple[Host, Host], certificate: Certificate, kind: str
) -> None:
    one, other = hosts
    serve(kind, one, certificate)
    uri = f"{'wss' if kind == 'tls' else 'ws'}://192.0.2.1:80/"
    client = other.etherws("client", "--foreground", uri, "--cacert", str(certificate.cert))
    client.says("connected")
    silent = [Peer(other, ("192.0.2.1", 80)) for _ in range(lobby.EACH)]
    assert not any(peer.hung_up() for peer in silent)
    for at in range(3):
        Peer(other, ("192.0.2.1", 80))
        # Before its time is over: the next has as much of that left.
        until(silent[at].hung_up, "room to be made")
        assert not silent[at + 1].hung_up()
    # It came first of all, but waits no more.
    assert "lost" not in client.output


def test_tunnels_and_proxies_of_this_machine_are_not_counted(hosts: tuple[Host, Host]) -> None:
    one, other = hosts
    one.etherws("server", "--foreground").says("listening")
    one.bridge("br0", "ethws0")
    silent = [Peer(one) for _ in range(lobby.EACH + 1)]
    silent += [Peer(other, ("192.0.2.1", 80)) for _ in range(lobby.EACH - 1)]
    tunnels = [Peer(other, ("192.0.2.1", 80)).upgraded() for _ in range(lobby.EACH)]
    assert not any(peer.hung_up() for peer in silent)
    assert not any(peer.hung_up() for peer in tunnels)


class Server(LobbyMixin, StreamServer):  # type: ignore[misc]
    """Waits for a line, says it back and hangs up."""

    def handle(self, sock: Any, address: Any) -> None:
        sock.sendall(sock.recv(100))


@pytest.fixture
def address(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server in whose lobby there is room for three."""
    monkeypatch.setattr(lobby, "TOTAL", 3)
    with host.namespace.inside():
        server = Server(("127.0.0.1", 0))
        server.start()
        yield server.address
        server.stop()


def test_who_waited_longest_makes_room(address: Any) -> None:
    with gevent.Timeout(20):
        first, second, third, fourth = (socket.create_connection(address) for _ in range(4))
        assert first.recv(100) == b""
        # One that has gone makes room too.
        second.sendall(b"hello")
        assert second.recv(100) == b"hello"
        assert second.recv(100) == b""
        fifth = socket.create_connection(address)
        for sock in (third, fourth, fifth):
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"
        for sock in (first, second, third, fourth, fifth):
            sock.close()


@pytest.mark.parametrize(
    ("address", "whence"),
    [
        ("", ""),
        (("127.0.0.2", 1), ""),
        (("::1", 1, 0, 0), ""),
        (("::ffff:127.0.0.1", 1, 0, 0), ""),
        (("192.0.2.1", 1), "192.0.2.1"),
        (("::ffff:192.0.2.1", 1, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::/64"),
    ],
)
def test_whence_a_connection_comes(address: Any, whence: str) -> None:
    class Lobby(lobby.LobbyMixin):
        def trusted(self) -> Networks:
            return Networks(["198.51.100.0/24"])

    assert Lobby()._whence(peer(address)) == whence
