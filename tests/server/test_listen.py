"""A server on a UNIX socket."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import socket
import ssl
import stat
from pathlib import Path

import pytest

from etherws.errors import ListenError
from etherws.server.listen import _tcp_reason, listen, name_of
from tests.lab.frames import frame
from tests.lab.hosts import PATIENCE, Host, Process
from tests.lab.peer import UnixPeer, masked, request
from tests.lab.pki import Certificate


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
    assert (
        f"cannot listen on unix:{path}: another process answers there; stop it, or choose another path" in second.output
    )
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
    assert "choose another name, or stop the program that listens there" in second.output
    running.stop()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("unix:", "is not an absolute path"),
        ("unix:{}/none/x.sock", "No such file or directory; create its folder first"),
        ("unix:{}", "this file is not a socket; remove it if nobody needs it, or choose another path"),
        ("unix:{}/" + "x" * 108, "path too long; choose another path, of at most 107 bytes"),
    ],
)
def test_where_no_socket_can_be_it_is_said(host: Host, tmp_path: Path, address: str, words: str) -> None:
    running = host.etherws("server", "--foreground", "--address", address.format(tmp_path))
    assert running.ends() == 1
    assert words in running.output
    assert "ethws0" not in host.links()


def test_a_relative_path_is_one_of_the_current_folder(host: Host, tmp_path: Path) -> None:
    running = host.etherws("server", "--foreground", "--address", "unix:lan.sock", cwd=tmp_path)
    running.says(f"listening on unix:{tmp_path}/lan.sock")
    UnixPeer(host, f"{tmp_path}/lan.sock").upgraded()


def test_a_port_that_needs_rights_is_refused_with_what_to_do() -> None:
    error = PermissionError(errno.EACCES, "Permission denied (while attempting to bind on address ('', 80))")
    found = _tcp_reason(error, None, 80)
    assert found.startswith("Permission denied; choose a --port above 1023, or run as root or with CAP_NET_BIND_")
    assert "--cap-add NET_BIND_SERVICE" in found


@pytest.mark.parametrize(("address", "prefix"), [("203.0.113.9", 32), ("2001:db8::9", 128)], ids=["IPv4", "IPv6"])
def test_an_address_may_come_later(host: Host, caplog: pytest.LogCaptureFixture, address: str, prefix: int) -> None:
    with host.namespace.inside(), listen(address, 0) as listener:
        assert f"no interface of this machine has the address {address} yet" in caplog.text
        # Which of the addresses it is: that of clients, or that of --monitor.
        assert f"port {listener.getsockname()[1]} can be reached there as soon as one has it" in caplog.text
        host.add_address("lo", f"{address}/{prefix}")
        with socket.create_connection((address, listener.getsockname()[1]), PATIENCE):
            pass
        # The address is taken now, with the name of who has it.
        with pytest.raises(ListenError, match=rf"port \d+ is taken by .* \(pid {os.getpid()}\)"):
            listen(address, listener.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("", "--address is empty; leave it out to listen on all addresses"),
        ("[::1]", "write an IPv6 address without brackets, and the port as --port 81"),
        ("[::1]:80", "write an IPv6 address without brackets, and the port as --port 81"),
        ("127.0.0.1:80", "write --address 127.0.0.1 --port 80"),
        ("http://host.example", "write an address without a scheme, a path or a prefix length"),
        ("192.0.2.1/24", "write an address without a scheme, a path or a prefix length"),
        ("fe80::1%none0", "there is no interface none0 yet; start etherws later"),
        ("fe80::1", "a link-local address needs its interface: fe80::1%eth0"),
        ("host.invalid", "An address in numbers needs no name server, and may come up later"),
    ],
)
def test_what_is_no_address_says_what_to_write(host: Host, address: str, words: str) -> None:
    with host.namespace.inside(), pytest.raises(ListenError, match=f"[;.] {re.escape(words)}"):
        listen(address, 81)


def test_a_start_that_fails_leaves_no_socket(host: Host, path: str) -> None:
    assert host.etherws("server", "--foreground", "--address", f"unix:{path}", "--device", "lo").ends() == 1
    assert not os.path.exists(path)


def test_a_socket_of_another_kind_stays(host: Host, path: str) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as other:
        other.bind(path)
        running = host.etherws("server", "--foreground", "--address", f"unix:{path}")
        assert running.ends() == 1
        assert os.strerror(errno.EPROTOTYPE) in running.output
        assert os.path.exists(path)


def test_unix_sockets_have_their_names(tmp_path: Path) -> None:
    for path, name in ((str(tmp_path / "s"), f"unix:{tmp_path / 's'}"), ("\0etherws-passed", "unix:@etherws-passed")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.bind(path)
            assert name_of(sock) == name
