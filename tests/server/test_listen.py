"""A server on a UNIX socket, and the PROXY protocol there and on TCP."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import ssl
import stat
from pathlib import Path

import pytest
from gevent import socket as gevent_socket

from etherws.addresses import Networks
from etherws.server import introduced
from etherws.server.introduced import IntroducedMixin
from tests.lab.frames import frame
from tests.lab.hosts import PATIENCE, Host, Process, until
from tests.lab.peer import Peer, masked, request
from tests.lab.pki import Certificate
from tests.lab.proxy_protocol import IPV4, IPV6, version_2
from tests.lab.servers import gunicorn


class UnixPeer(Peer):
    """A client on a UNIX socket."""

    def __init__(self, host: Host, address: str) -> None:
        self._socket = host.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(address)
        self._left = b""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """For the socket."""
    return str(tmp_path / "etherws.sock")


def serve(host: Host, *options: str) -> Process:
    """A server that listens."""
    running = host.etherws("server", "--foreground", *options)
    running.says("listening")
    return running


def test_clients_come_by_a_unix_socket(host: Host, path: str) -> None:
    running = serve(host, "--address", f"unix:{path}", "--path", "/lan")
    assert f"ethws0 is up, listening on unix:{path} for ws, path /lan" in running.output
    found = os.stat(path)
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o660
    host.bridge("br0", "ethws0")
    frames = host.frames("ethws0")
    peers = [UnixPeer(host, path) for _ in range(2)]
    for peer in peers:
        peer.say(request("GET /lan HTTP/1.1"))
        assert peer.head().startswith(b"HTTP/1.1 101 ")
    peers[0].say(masked(0x82, frame(1514)))
    assert frames.receive() == frame(1514)
    # The kernel sends some of its own.
    while peers[1].frame() != (0x82, frame(1514)):
        pass
    frames.send(frame(100))
    while peers[0].frame() != (0x82, frame(100)):
        pass
    peers[0].say(masked(0x88, b"\x03\xe8"))
    assert "a local client left ethws0" in running.says("left ethws0")
    running.stop()
    assert not os.path.exists(path)
    assert "Traceback" not in running.output


def test_tls_and_mistakes_on_a_unix_socket(host: Host, path: str, certificate: Certificate) -> None:
    tls = ("--keyfile", str(certificate.key), "--certfile", str(certificate.cert))
    running = serve(host, "--address", f"unix:{path}", "--log-level", "debug", *tls)
    UnixPeer(host, path).say(b"GET / HTTP/1.1\r\n\r\n")
    running.says("failed")
    sock = host.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    sock.connect(path)
    context = ssl.create_default_context(cafile=str(certificate.cert))
    with context.wrap_socket(sock, server_hostname="localhost") as peer:
        peer.sendall(b"nonsense\r\n\r\n")
        assert b"400" in peer.recv(65536)
    running.says("bad request from a local client")
    assert "Traceback" not in running.output


def test_a_dead_servers_socket_is_replaced_and_a_living_ones_is_not(host: Host, path: str) -> None:
    running = serve(host, "--address", f"unix:{path}")
    running.signal(signal.SIGKILL)
    running.ends()
    assert os.path.exists(path)
    serve(host, "--address", f"unix:{path}")
    second = host.etherws("server", "--foreground", "--address", f"unix:{path}")
    assert second.ends() == 1
    assert f"cannot listen on unix:{path}: another server answers there; stop it first" in second.output
    UnixPeer(host, path).upgraded()


def test_the_end_removes_no_other_servers_socket(host: Host, path: str) -> None:
    running = serve(host, "--address", f"unix:{path}")
    os.unlink(path)
    other = serve(host, "--address", f"unix:{path}")
    running.stop()
    UnixPeer(host, path).upgraded()
    other.stop()
    assert not os.path.exists(path)


def test_abstract_names_need_no_file(host: Host) -> None:
    running = serve(host, "--address", "unix:@etherws")
    UnixPeer(host, "\0etherws").upgraded()
    second = host.etherws("server", "--foreground", "--address", "unix:@etherws")
    assert second.ends() == 1
    assert "choose another name, or stop what listens there" in second.output
    running.stop()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("unix:relative.sock", "is no path; write unix:/run/etherws.sock"),
        ("unix:", "is no path"),
        ("unix:{}/none/x.sock", "No such file or directory; make its folder first"),
        ("unix:{}", "there is something else; remove it"),
        ("unix:{}/" + "x" * 108, "path too long; choose another path, of 107 bytes at most"),
    ],
)
def test_where_no_socket_can_be_it_is_said(host: Host, tmp_path: Path, address: str, words: str) -> None:
    running = host.etherws("server", "--foreground", "--address", address.format(tmp_path))
    assert running.ends() == 1
    assert words in running.output
    assert "ethws0" not in host.links()


def test_a_start_that_fails_leaves_no_socket(host: Host, path: str) -> None:
    assert host.etherws("server", "--foreground", "--address", f"unix:{path}", "--device", "lo").ends() == 1
    assert not os.path.exists(path)


@pytest.mark.parametrize("proxy_protocol", ["", "1"])
def test_gunicorn_serves_a_unix_socket_to_trusted_proxies(host: Host, path: str, proxy_protocol: str) -> None:
    env = {"ETHERWS_SERVER_TRUSTED_PROXY": "unix 10.0.0.0/8", "ETHERWS_SERVER_PROXY_PROTOCOL": proxy_protocol}
    running = gunicorn(host, "-b", f"unix:{path}", **env)
    until(lambda: "ethws0" in host.links(), "ethws0 to appear")
    frames = host.frames("ethws0")
    peer = UnixPeer(host, path)
    if proxy_protocol:
        peer.say(introduction(2, "10.0.0.8"))
    peer.say(request(X_Forwarded_For="6.6.6.6, 192.0.2.1, 10.0.0.9"))
    assert peer.head().startswith(b"HTTP/1.1 101 ")
    peer.say(masked(0x82, frame(100)))
    assert frames.receive() == frame(100)
    running.stop()
    # In its access log.
    assert "192.0.2.1 - - " in running.output


def introduction(version: int, address: str = "192.0.2.1") -> bytes:
    """A PROXY header that names a client."""
    if version == 1:
        return f"PROXY TCP4 {address} 198.51.100.1 4711 443\r\n".encode()
    return version_2(0x21, 0x11, socket.inet_aton(address) + IPV4[4:])


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("where", ["unix", "tcp"])
def test_a_proxy_introduces_its_client(host: Host, path: str, where: str, version: int) -> None:
    address, trusted = (f"unix:{path}", "unix") if where == "unix" else ("127.0.0.1", "127.0.0.0/8")
    running = serve(host, "--address", address, "--trusted-proxy", trusted, "--proxy-protocol")
    frames = host.frames("ethws0")
    peer = UnixPeer(host, path) if where == "unix" else Peer(host)
    peer.say(introduction(version) + request() + masked(0x82, frame(100)))
    assert peer.head().startswith(b"HTTP/1.1 101 ")
    assert frames.receive() == frame(100)
    running.says("192.0.2.1 joined on ethws0")


def test_an_introduction_comes_ahead_of_tls_and_byte_by_byte(host: Host, certificate: Certificate) -> None:
    tls = ("--keyfile", str(certificate.key), "--certfile", str(certificate.cert))
    running = serve(host, "--trusted-proxy", "127.0.0.1", "--proxy-protocol", *tls)
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


def test_a_proxy_that_introduces_itself_speaks_for_itself(host: Host) -> None:
    running = serve(host, "--trusted-proxy", "127.0.0.1", "--proxy-protocol")
    Peer(host).say(b"PROXY UNKNOWN\r\n" + request())
    running.says("127.0.0.1 joined on ethws0")


def test_a_proxy_without_an_introduction_is_hung_up_on_and_said_once(host: Host) -> None:
    running = serve(host, "--trusted-proxy", "127.0.0.1", "--proxy-protocol")
    for data in (request(), version_2(0x21, 0x11, b"", 65535), b"PROXY TCP4 a b c d\r\n"):
        peer = Peer(host)
        peer.say(data)
        assert peer.rest() == b""
    running.says("the proxy 127.0.0.1 was hung up on: there is no PROXY header; have the proxy send one")
    assert running.output.count("hung up on") == 1
    peer = Peer(host)
    peer.say(introduction(1) + request())
    assert peer.head().startswith(b"HTTP/1.1 101 ")


def test_nobody_else_introduces_anyone(host: Host) -> None:
    running = serve(host, "--trusted-proxy", "10.0.0.0/8", "--proxy-protocol")
    for version in (1, 2):
        peer = Peer(host)
        peer.say(introduction(version) + request())
        assert b" 101 " not in peer.rest()
    peer = Peer(host)
    peer.say(request(X_Forwarded_For="6.6.6.6", Forwarded="for=6.6.6.6"))
    assert peer.head().startswith(b"HTTP/1.1 101 ")
    assert "127.0.0.1 joined on ethws0" in running.says("joined")


def test_headers_count_behind_an_introduction_of_a_proxy(host: Host) -> None:
    running = serve(host, "--trusted-proxy", "127.0.0.1", "--trusted-proxy", "10.0.0.0/8", "--proxy-protocol")
    Peer(host).say(introduction(2, "10.0.0.1") + request(X_Forwarded_For="192.0.2.1"))
    running.says("192.0.2.1 joined on ethws0")


def test_a_malformed_header_is_said_once_and_the_proxy_counts(host: Host) -> None:
    running = serve(host, "--trusted-proxy", "127.0.0.1")
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
    serve(host, "--trusted-proxy", "127.0.0.1", "--proxy-protocol")
    silent = [Peer(host) for _ in range(20)]
    for peer in silent[::2]:
        peer.say(b"PROX")
    peer = Peer(host)
    peer.say(introduction(1) + request())
    assert peer.head().startswith(b"HTTP/1.1 101 ")


def test_a_silent_proxy_is_hung_up_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Introduced(IntroducedMixin):
        def introducers(self) -> Networks:
            return Networks(["192.0.2.0/24"])

    monkeypatch.setattr(introduced, "HEADER_TIMEOUT", 0.05)
    ours, its = gevent_socket.socketpair()
    with contextlib.closing(its):
        its.sendall(b"PROXY TCP4 ")
        Introduced().handle(ours, ("192.0.2.1", 4711))
        assert its.recv(1) == b""
    assert "the proxy 192.0.2.1 was hung up on: no PROXY header within 0.05 s" in caplog.text


def test_a_socket_of_another_kind_stays(host: Host, path: str) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as other:
        other.bind(path)
        running = host.etherws("server", "--foreground", "--address", f"unix:{path}")
        assert running.ends() == 1
        assert os.strerror(errno.EPROTOTYPE) in running.output
        assert os.path.exists(path)
