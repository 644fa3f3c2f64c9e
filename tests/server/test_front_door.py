"""The front door: limits for those who connect and say nothing, the PROXY header, TLS; on each kind of server."""

from __future__ import annotations

import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import gevent
import pytest

from etherws import addresses
from etherws.server import visitor
from etherws.server.front_door import Address, Admitted, FrontDoor
from etherws.server.serve import tls_contexts
from etherws.settings import ServerSettings
from tests.lab.frames import frame
from tests.lab.hosts import PATIENCE, Host, Process, until
from tests.lab.peer import Peer, UnixPeer, masked, request
from tests.lab.pki import Certificate
from tests.lab.proxy_protocol import IPV6, header, version_2
from tests.lab.servers import gunicorn
from tests.lab.sockets import gevent_pair


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


#: As many as all clients of a large site behind one address; `bench/load.py 1000 --addresses 1` tries more.
CROWD = 300


@pytest.mark.parametrize("kind", ["plain", "tls", "gunicorn"])
def test_all_clients_of_one_address_that_come_at_once_come_in(
    hosts: tuple[Host, Host], certificate: Certificate, kind: str
) -> None:
    one, other = hosts
    serve(kind, one, certificate)
    # In a bridge, each gets a port of its own.
    one.bridge("br0", "ethws0")
    silent = [Peer(other, ("192.0.2.1", 80)) for _ in range(100)]
    assert not any(peer.hung_up() for peer in silent)
    peers = [Peer(other, ("192.0.2.1", 80), tls=kind == "tls") for _ in range(CROWD)]
    for peer in peers:
        peer.say(request())
    for peer in peers:
        assert peer.head().startswith(b"HTTP/1.1 101 ")


def test_silent_connections_make_room_for_who_speaks(hosts: tuple[Host, Host]) -> None:
    one, other = hosts
    # Half of the descriptors are for those that wait.
    limited(one, 128, "server", "--foreground", "--bridge", "br0").says("listening")
    local = Peer(one)
    silent = [Peer(other, ("192.0.2.1", 80)) for _ in range(200)]
    for _ in range(5):
        Peer(other, ("192.0.2.1", 80)).upgraded()
    until(silent[0].hung_up, "room to be made")
    # It came first of all, but its source has no other.
    assert not local.hung_up()
    local.upgraded()


def test_out_of_descriptors_is_one_warning_and_sessions_go_on(hosts: tuple[Host, Host]) -> None:
    one, other = hosts
    running = limited(one, 64, "server", "--foreground", "--bridge", "br0")
    running.says("listening")
    frames = one.frames("ethws0")
    first = Peer(other, ("192.0.2.1", 80)).upgraded()
    # Its rules are put in force by a descriptor, too.
    first.say(masked(0x82, frame(100)))
    assert frames.receive() == frame(100)
    # Each takes a descriptor for its connection and one for its TAP, up to the last.
    others = [Peer(other, ("192.0.2.1", 80)) for _ in range(60)]
    for peer in others:
        peer.say(request())
    running.says("open files")
    first.say(masked(0x82, frame(100)))
    assert frames.receive() == frame(100)
    assert "by LimitNOFILE in the systemd unit, or by ulimit -n" in running.output
    assert "Traceback" not in running.output
    for peer in others:
        peer.close()
    Peer(other, ("192.0.2.1", 80)).upgraded()
    assert running.output.count("cannot accept more connections") <= 1
    # At the limit one is let in now and then.
    assert running.output.count("was refused: cannot create") <= 1
    assert "64 open files are allowed: enough for about 0 clients" in running.output


def limited(host: Host, descriptors: int, *arguments: str) -> Process:
    """Start etherws with so many descriptors."""
    shell = f'ulimit -n {descriptors}; exec "$@"'
    return host.run("sh", "-c", shell, "sh", sys.executable, "-m", "etherws", *arguments)


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("", ""),
        (("127.0.0.2", 1), ""),
        (("::1", 1, 0, 0), ""),
        (("::ffff:127.0.0.1", 1, 0, 0), ""),
        (("192.0.2.1", 1), "192.0.2.1"),
        (("::ffff:192.0.2.1", 1, 0, 0), "192.0.2.1"),
        (("198.51.100.7", 1), ""),
        (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::/64"),
    ],
)
def test_each_source_but_this_machine_and_proxies_is_limited(address: Address, source: str) -> None:
    door = FrontDoor(ServerSettings(trusted_proxy=("198.51.100.0/24",)), None)
    assert door._source(addresses.peer(address)) == source


def admitted(door: FrontDoor, sock: Any, address: Address) -> Admitted | None:
    """What the door passes on for a connection, if anything."""
    found: list[Admitted] = []
    door.admit(sock, address, found.append)
    return found[0] if found else None


def test_a_plain_connection_is_admitted_as_it_is() -> None:
    ours, its = gevent_pair()
    with its:
        found = admitted(FrontDoor(ServerSettings(), None), ours, ("192.0.2.1", 4711))
        assert found
        assert (found.stream.tcp, found.address, found.certificate) == (ours, ("192.0.2.1", 4711), None)
        # The door closes what it opened.
        assert its.recv(1) == b""


def test_a_connection_that_was_upgraded_waits_no_longer() -> None:
    door = FrontDoor(ServerSettings(), None)
    waiting: list[int] = []

    def speak(admitted: Admitted) -> None:
        waiting.append(door.waiting.count)
        admitted.visitor.leave()
        waiting.append(door.waiting.count)

    ours, its = gevent_pair()
    with its:
        door.admit(ours, "", speak)
    assert waiting == [1, 0]


def test_a_failure_of_http_leaves_neither_a_socket_nor_a_place_in_the_list() -> None:
    door = FrontDoor(ServerSettings(), None)

    def speak(_: Admitted) -> None:
        raise OSError("broken")

    ours, its = gevent_pair()
    with its:
        with pytest.raises(OSError, match="broken"):
            door.admit(ours, "", speak)
        assert its.recv(1) == b""
    assert not door.waiting.count


PROXY = ServerSettings(trusted_proxy=("192.0.2.0/24", "unix"), proxy_protocol=True)


@pytest.mark.parametrize("proxy", [("192.0.2.1", 4711), ""])
def test_the_header_gives_the_address_that_http_sees(proxy: Address) -> None:
    ours, its = gevent_pair()
    with its:
        its.sendall(header(1, "203.0.113.9") + b"GET /")
        found: list[tuple[Address, bytes]] = []
        FrontDoor(PROXY, None).admit(ours, proxy, lambda each: found.append((each.address, each.stream.recv(100))))
        assert found == [(("203.0.113.9", 4711), b"GET /")]


@pytest.mark.parametrize(
    ("proxy", "name"), [(("::ffff:192.0.2.1", 4711, 0, 0), "192.0.2.1"), ("", "on the UNIX socket")]
)
def test_a_silent_proxy_is_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, proxy: Address, name: str
) -> None:
    monkeypatch.setattr(visitor, "STEP_TIMEOUT", 0.05)
    ours, its = gevent_pair()
    with its:
        its.sendall(b"PROXY TCP4 ")
        assert admitted(FrontDoor(PROXY, None), ours, proxy) is None
        assert its.recv(1) == b""
    assert f"closed a connection of the proxy {name}: no PROXY header: not done within 0.05 s" in caplog.text


def test_a_proxy_that_ends_its_connection_is_closed() -> None:
    ours, its = gevent_pair()
    its.close()
    assert admitted(FrontDoor(PROXY, None), ours, "") is None


@pytest.fixture
def path(tmp_path: Path) -> str:
    """For a UNIX socket."""
    return str(tmp_path / "etherws.sock")


def listening(host: Host, *options: str) -> Process:
    """A server that listens."""
    running = host.etherws("server", "--foreground", *options)
    running.says("listening")
    return running


@pytest.mark.parametrize("proxy_protocol", ["", "1"])
def test_gunicorn_serves_a_unix_socket_to_trusted_proxies(host: Host, path: str, proxy_protocol: str) -> None:
    env = {"ETHERWS_SERVER_TRUSTED_PROXY": "unix 10.0.0.0/8", "ETHERWS_SERVER_PROXY_PROTOCOL": proxy_protocol}
    running = gunicorn(host, "-b", f"unix:{path}", **env)
    until(lambda: "ethws0" in host.links(), "ethws0 to appear")
    frames = host.frames("ethws0")
    peer = UnixPeer(host, path)
    if proxy_protocol:
        peer.say(header(2, "10.0.0.8"))
    peer.say(request(X_Forwarded_For="6.6.6.6, 192.0.2.1, 10.0.0.9"))
    assert peer.head().startswith(b"HTTP/1.1 101 ")
    peer.say(masked(0x82, frame(100)))
    assert frames.receive() == frame(100)
    running.stop()
    # In its access log.
    assert "192.0.2.1 - - " in running.output


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("where", ["unix", "tcp"])
def test_a_proxy_names_its_client(host: Host, path: str, where: str, version: int) -> None:
    address, trusted = (f"unix:{path}", "unix") if where == "unix" else ("127.0.0.1", "127.0.0.0/8")
    running = listening(host, "--address", address, "--trusted-proxy", trusted, "--proxy-protocol")
    frames = host.frames("ethws0")
    peer = UnixPeer(host, path) if where == "unix" else Peer(host)
    peer.say(header(version) + request() + masked(0x82, frame(100)))
    assert peer.head().startswith(b"HTTP/1.1 101 ")
    assert frames.receive() == frame(100)
    running.says("192.0.2.1 joined on ethws0")


def test_the_header_comes_before_tls_and_byte_by_byte(host: Host, certificate: Certificate) -> None:
    tls = ("--keyfile", str(certificate.key), "--certfile", str(certificate.cert))
    running = listening(host, "--trusted-proxy", "127.0.0.1", "--proxy-protocol", *tls)
    sock = host.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.connect(("127.0.0.1", 443))
    for byte in version_2(0x21, 0x21, IPV6 + b"\x02\x00\x04host"):
        sock.sendall(bytes([byte]))
    context = ssl.create_default_context(cafile=str(certificate.cert))
    with context.wrap_socket(sock, server_hostname="localhost") as peer:
        peer.sendall(request())
        assert peer.recv(65536).startswith(b"HTTP/1.1 101 ")
        running.says("2001:db8::1 joined on ethws0")


def test_a_header_without_a_client_leaves_the_proxys_address(host: Host) -> None:
    running = listening(host, "--trusted-proxy", "127.0.0.1", "--proxy-protocol")
    Peer(host).say(b"PROXY UNKNOWN\r\n" + request())
    running.says("127.0.0.1 joined on ethws0")


def test_a_proxy_without_the_header_is_closed_and_logged(host: Host) -> None:
    running = listening(host, "--trusted-proxy", "127.0.0.1", "--proxy-protocol")
    for data in (request(), version_2(0x21, 0x11, b"", 65535), b"PROXY TCP4 a b c d\r\n"):
        peer = Peer(host)
        peer.say(data)
        assert peer.rest() == b""
    running.says("closed a connection of the proxy 127.0.0.1: there is no PROXY header; have the proxy send one")
    peer = Peer(host)
    peer.say(header(1) + request())
    assert peer.head().startswith(b"HTTP/1.1 101 ")


def test_nobody_else_may_name_a_client(host: Host) -> None:
    running = listening(host, "--trusted-proxy", "10.0.0.0/8", "--proxy-protocol")
    for version in (1, 2):
        peer = Peer(host)
        peer.say(header(version) + request())
        assert b" 101 " not in peer.rest()
    peer = Peer(host)
    peer.say(request(X_Forwarded_For="6.6.6.6", Forwarded="for=6.6.6.6"))
    assert peer.head().startswith(b"HTTP/1.1 101 ")
    assert "127.0.0.1 joined on ethws0" in running.says("joined")


def test_http_headers_count_after_the_header_of_a_proxy(host: Host) -> None:
    running = listening(host, "--trusted-proxy", "127.0.0.1", "--trusted-proxy", "10.0.0.0/8", "--proxy-protocol")
    Peer(host).say(header(2, "10.0.0.1") + request(X_Forwarded_For="192.0.2.1"))
    running.says("192.0.2.1 joined on ethws0")


def test_a_malformed_http_header_is_logged_once_and_the_proxy_counts(host: Host) -> None:
    running = listening(host, "--trusted-proxy", "127.0.0.1")
    for times in (1, 2):
        peer = Peer(host)
        peer.say(request(X_Forwarded_For="who knows"))
        running.says("127.0.0.1 joined on ethws0", times)
        peer.close()
        running.says("left ethws0", times)
    assert running.output.count("the proxy 127.0.0.1: the X-Forwarded-For header is malformed") == 1


def test_the_protocol_needs_a_proxy_to_trust(host: Host) -> None:
    running = host.etherws("server", "--foreground", "--proxy-protocol")
    assert running.ends() == 1
    assert "--proxy-protocol needs --trusted-proxy" in running.output


def test_a_silent_proxy_holds_up_nobody(host: Host) -> None:
    listening(host, "--trusted-proxy", "127.0.0.1", "--proxy-protocol")
    silent = [Peer(host) for _ in range(20)]
    for peer in silent[::2]:
        peer.say(b"PROX")
    peer = Peer(host)
    peer.say(header(1) + request())
    assert peer.head().startswith(b"HTTP/1.1 101 ")


def test_a_request_without_tls_is_told_that_the_port_has_tls(certificate: Certificate) -> None:
    contexts = tls_contexts(str(certificate.cert), str(certificate.key), None)
    ours, theirs = gevent_pair()
    theirs.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    door = FrontDoor(ServerSettings(), contexts)
    admitted: list[Admitted] = []
    serving = gevent.spawn(door.admit, ours, ("192.0.2.1", 1), admitted.append)
    answer = theirs.recv(1000)
    theirs.close()
    serving.join(PATIENCE)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert f"Content-Length: {len(body)}\r\n".encode() in head
    assert body.startswith(b"this is an HTTP request to an HTTPS server; use wss:// or https:// (refusal ")
