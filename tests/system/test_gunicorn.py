"""The WSGI application under a real gunicorn, by the commands of docs/embedding.rst, and in another application."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import sys
from pathlib import Path

import pytest

import etherws
from etherws.access import passwd
from etherws.access.certificates import pin_of
from tests.lab.frames import frame
from tests.lab.hosts import PATIENCE, Host, until
from tests.lab.joining import joining
from tests.lab.peer import Peer, masked, request
from tests.lab.pki import Authority, Certificate
from tests.lab.servers import gunicorn

pytest.importorskip("gunicorn", reason="gunicorn is not installed")


def test_a_client_connects_and_frames_pass_both_ways(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    one, other = hosts
    program, configuration = tmp_path / "up", tmp_path / "lan.toml"
    program.write_text(f'#!/bin/sh\necho "for $ETHERWS_ROLE" >{tmp_path}/ran\n')
    program.chmod(0o755)
    configuration.write_text('up = "up"\n')
    running = gunicorn(one, "-b", "[::]:80", ETHERWS_SERVER_CONFIG=str(configuration))
    # The interface is there before any client, to be bridged.
    until(lambda: "ethws0" in one.links(), "ethws0 to appear")
    other.etherws("client", "--foreground", "ws://192.0.2.1/").says("connected")
    ends = [host.frames("ethws0") for host in hosts]
    for sender, receiver in (ends, ends[::-1]):
        for size in (14, 60, 1514):
            sender.send(frame(size))
            assert receiver.receive() == frame(size)
    # Programs run there, too.
    until(lambda: (tmp_path / "ran").exists() and (tmp_path / "ran").read_text() == "for server\n", "the program")
    running.stop()
    assert '"GET / HTTP/1.1" 101' in running.output
    assert "Traceback" not in running.output


def test_a_client_connects_by_tls(hosts: tuple[Host, Host], certificate: Certificate) -> None:
    one, other = hosts
    gunicorn(one, "-b", "[::]:443", "--keyfile", str(certificate.key), "--certfile", str(certificate.cert))
    client = other.etherws("client", "--foreground", "wss://192.0.2.1/", "--cacert", str(certificate.cert))
    client.says("connected to wss://192.0.2.1:443")
    ends = [host.frames("ethws0") for host in hosts]
    ends[0].send(frame(1514))
    assert ends[1].receive() == frame(1514)


def test_settings_come_from_the_environment_and_workers_meet_in_a_bridge(host: Host) -> None:
    env = {"ETHERWS_SERVER_DEVICE": "lab%d", "ETHERWS_SERVER_BRIDGE": "br-lab", "ETHERWS_SERVER_PATH": "/lab"}
    gunicorn(host, "-b", "127.0.0.1:80", "-w", "2", **env)
    until(lambda: {"lab0", "br-lab"} <= set(host.links()), "the first interface, of all workers")
    peer = Peer(host)
    peer.say(request("GET / HTTP/1.1"))
    assert peer.head().startswith(b"HTTP/1.1 404 ")
    peers = [Peer(host) for _ in range(8)]
    for peer in peers:
        peer.say(request("GET /lab HTTP/1.1"))
        assert peer.head().startswith(b"HTTP/1.1 101 ")
    # Whichever workers they came to, they are on one LAN.
    peers[0].say(masked(0x82, frame(100, to=b"\xff" * 6)))
    for peer in peers[1:]:
        while peer.frame() != (0x82, frame(100, to=b"\xff" * 6)):
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=["graceful", "at once"])
def test_tunnels_are_closed_with_1001_and_interfaces_removed_at_the_end(host: Host, number: signal.Signals) -> None:
    running = gunicorn(host, "-b", "127.0.0.1:80", ETHERWS_SERVER_BRIDGE="br0")
    running.says("Booting worker")
    until(lambda: "ethws0" in host.links(), "ethws0 to appear")
    peer = Peer(host).upgraded()
    running.signal(number)
    while (got := peer.frame())[0] != 0x88:
        pass
    assert got == (0x88, b"\x03\xe9")
    peer.close()
    assert running.ends(10) == 0
    assert not {"ethws0", "br0"} & set(host.links())
    assert "Traceback" not in running.output


def test_a_lost_client_gets_its_port_back(host: Host) -> None:
    running = gunicorn(host, "-b", "127.0.0.1:80", ETHERWS_SERVER_BRIDGE="br0")
    until(lambda: "ethws0" in host.links(), "ethws0 to appear")
    indexes = []
    for name in ("a", "b", "b"):
        # The last comes before it is known that the one before it was lost.
        peer = Peer(host)
        peer.say(request(Etherws_Resume=name * 22))
        assert peer.head().startswith(b"HTTP/1.1 101 ")
        indexes.append({link: found["index"] for link, found in host.links().items() if link.startswith("ethws")})
    assert indexes[1] == indexes[2]
    assert len(indexes[2]) == 2
    assert "Traceback" not in running.output


def test_a_worker_that_is_killed_is_replaced_and_its_clients_come_back(hosts: tuple[Host, Host]) -> None:
    one, other = hosts
    running = gunicorn(one, "-b", "0.0.0.0:80", ETHERWS_SERVER_BRIDGE="br0")
    found = re.search(r"Booting worker with pid: (\d+)", running.says("Booting worker"))
    until(lambda: "ethws0" in one.links(), "ethws0 to appear")
    client = other.etherws("client", "--foreground", "ws://192.0.2.1/", "--retry-interval", "50ms")
    client.says("connected")
    assert found
    os.kill(int(found[1]), signal.SIGKILL)
    client.says("connected", times=2)
    ends = [host.frames("ethws0") for host in hosts]
    ends[1].send(frame(100))
    assert ends[0].receive() == frame(100)
    assert one.links()["ethws0"].get("master") == one.links()["br0"]["index"]


def test_frames_that_come_with_the_request_are_kept(host: Host) -> None:
    gunicorn(host, "-b", "127.0.0.1:80")
    until(lambda: "ethws0" in host.links(), "ethws0 to appear")
    frames = host.frames("ethws0")
    sent = [frame(size) for size in (14, 100, 1514) for _ in range(20)]
    Peer(host).say(request() + b"".join(masked(0x82, each) for each in sent))
    assert [frames.receive() for _ in sent] == sent


def test_plain_requests_and_bad_ones_are_answered(host: Host) -> None:
    gunicorn(host, "-b", "127.0.0.1:80").says("Booting worker")
    until(lambda: "ethws0" in host.links(), "ethws0 to appear")
    for data, status in (
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"426"),
        (request(Sec_WebSocket_Key="short"), b"400"),
        (request("POST / HTTP/1.1"), b"405"),
    ):
        peer = Peer(host)
        peer.say(data)
        assert peer.rest().startswith(b"HTTP/1.1 " + status)


def test_bad_settings_stop_gunicorn_with_a_message(host: Host) -> None:
    running = gunicorn(host, "-b", "127.0.0.1:80", ETHERWS_SERVER_MTU="many")
    assert running.ends() != 0
    assert "ETHERWS_SERVER_MTU 'many' is not a number" in running.output
    assert "Traceback" not in running.output


EMBEDDED = """
from etherws.server.http import Handler
from etherws.settings import ServerSettings
from etherws.wsgi import Application
from gevent.pywsgi import WSGIServer

lab = Application(ServerSettings(device="lab%d", bridge="br-lab", path="/lab"))

def application(environ, start_response):
    if environ["PATH_INFO"] == "/lab":
        return lab(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello\\n"]

WSGIServer(("", 8080), application, handler_class=Handler).serve_forever()
"""


def test_a_tunnel_is_a_part_of_another_application(host: Host, tmp_path: Path) -> None:
    (tmp_path / "site.wsgi").write_text(EMBEDDED)
    host.run(sys.executable, str(tmp_path / "site.wsgi"), env={"PYTHONPATH": str(Path(etherws.__file__).parent.parent)})

    def connect() -> Peer | None:
        try:
            return Peer(host, ("127.0.0.1", 8080))
        except ConnectionError:
            return None

    visitor = until(connect, "the site to listen")
    visitor.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert visitor.rest().endswith(b"hello\n")
    assert "lab0" not in host.links()
    # The first two at once.
    other, peer = (Peer(host, ("127.0.0.1", 8080)) for _ in range(2))
    for each in (peer, other):
        each.say(request("GET /lab HTTP/1.1"))
    for each in (peer, other):
        assert each.head().startswith(b"HTTP/1.1 101 ")
    assert {name for name in host.links() if name.startswith("lab")} == {"lab0", "lab1"}
    frames = host.frames("lab0")
    for each in (peer, other):
        each.say(masked(0x82, frame(100)))
    assert frames.receive() == frame(100)


def test_certificates_passwords_and_policy_are_demanded_there_too(
    host: Host, authority: Authority, tmp_path: Path
) -> None:
    passwd.set_password(tmp_path / "passwords", "alice", "sesame", cost=4)
    (tmp_path / "policy.toml").write_text(
        '[default]\nconnect = false\n[client.alice]\nconnect = true\ndevice = "alice%d"\n'
    )
    pair, card = authority.issue(), authority.issue(("laptop",))
    running = gunicorn(
        host, "-b", "127.0.0.1:443", "--keyfile", str(pair.key), "--certfile", str(pair.cert),
        "--ca-certs", str(authority.cert), "--cert-reqs", "2",
        ETHERWS_SERVER_BRIDGE="br0",
        ETHERWS_SERVER_HTPASSWD=str(tmp_path / "passwords"), ETHERWS_SERVER_POLICY=str(tmp_path / "policy.toml"),
    )  # fmt: skip
    running.says("Booting worker")
    until(lambda: "ethws0" in host.links(), "ethws0 to appear")
    assert joining(host, authority, "--no-retry-on-auth-failure").ends() == 77
    options = ["--certfile", str(card.cert), "--keyfile", str(card.key), "--no-retry-on-auth-failure"]
    assert joining(host, authority, *options).ends() == 77
    wrong = joining(host, authority, *options, env={"ETHERWS_CLIENT_USER": "alice:wrong"})
    assert wrong.ends() == 77
    assert "answered 401 Unauthorized" in wrong.output
    right = joining(host, authority, *options, env={"ETHERWS_CLIENT_USER": "alice:sesame"})
    right.says("connected")
    until(lambda: "alice0" in host.links(), "alice's interface")
    # A new certificate is shown without a restart, and nobody is disturbed.
    other = authority.issue()
    for source, target in zip(other, pair, strict=True):
        target.write_bytes(source.read_bytes())
    sock = host.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    sock.connect(("127.0.0.1", 443))
    context = ssl.create_default_context(cafile=str(authority.cert))
    context.load_cert_chain(card.cert, card.key)
    with context.wrap_socket(sock, server_hostname="localhost") as wrapped:
        assert pin_of(wrapped.getpeercert(True) or b"") == pin_of(ssl.PEM_cert_to_DER_cert(other.cert.read_text()))
    assert "lost" not in right.output


def test_an_open_gunicorn_says_so_once(host: Host) -> None:
    running = gunicorn(host, "-b", "[::]:80", "-w", "2", ETHERWS_SERVER_BRIDGE="br0")
    running.says("Booting worker", times=2)
    until(lambda: "ethws0" in host.links(), "the interface for both workers")
    running.says("anyone who reaches this server may join the LAN")
    assert running.output.count("anyone who reaches") == 1
