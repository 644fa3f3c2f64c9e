"""gunicorn's own gevent workers and gevent-websocket's: frames, login, policy, resumption, the end. And workers that
cannot carry a tunnel."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from etherws import features
from etherws.access import passwd
from tests.lab.frames import frame
from tests.lab.hosts import Host, Process, until
from tests.lab.peer import Peer, UnixPeer, basic, masked, request
from tests.lab.pki import Authority
from tests.lab.servers import gunicorn

pytest.importorskip("gunicorn", reason="gunicorn is not installed")

WEBSOCKET = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"

#: Those that can carry a tunnel, with TLS and without.
SERVERS = [("gevent", False), ("gevent", True), (WEBSOCKET, False), (WEBSOCKET, True)]

MAC = b"\x02\xee\x00\x00\x00\x05"

POLICY = """
[client.carol]
macs = ["02:ee:00:00:00:05"]
device = "carol%d"
[client.mallory]
connect = false
"""


class Running(NamedTuple):
    """A server, and what its tests need to know."""

    host: Host
    worker: str
    tls: bool
    process: Process
    authority: Authority

    @property
    def early(self) -> bool:
        """Whether it sends its 101 before it knows the client."""
        return self.worker == WEBSOCKET

    def peer(self) -> Peer:
        """A connection."""
        return Peer(self.host, ("127.0.0.1", 443 if self.tls else 80), tls=self.tls)

    def join(self, name: str, **headers: str | None) -> Peer:
        """A client that has a port in the bridge: an early 101 says nothing of that, but the answer to a ping does."""
        peer = self.peer()
        peer.say(request(Authorization=basic(f"{name}:sesame"), **headers))
        assert peer.head().startswith(b"HTTP/1.1 101 ")
        peer.say(masked(0x89, b"in"))
        while (got := peer.frame()) != (0x8A, b"in"):
            assert got[0] == 0x82, f"the server did not let {name} in: {got!r}"
        return peer

    def port(self, name: str) -> Any:
        """The interface of a name, or None."""
        return next((link for ifname, link in self.host.links().items() if ifname.startswith(name)), None)


@pytest.fixture(scope="module", params=SERVERS, ids=lambda pair: f"{pair[0][-9:]} {'wss' if pair[1] else 'ws'}")
def running(
    request: pytest.FixtureRequest, network: None, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """One server for all tests of a worker."""
    worker, tls = request.param
    folder: Path = tmp_path_factory.mktemp("worker")
    for name in ("alice", "bob", "carol", "mallory"):
        passwd.set_password(folder / "passwords", name, "sesame", cost=4)
    (folder / "policy.toml").write_text(POLICY)
    options = ["-b", "127.0.0.1:443" if tls else "127.0.0.1:80"]
    if tls:
        pair = authority.issue()
        options += ["--keyfile", str(pair.key), "--certfile", str(pair.cert)]
    with contextlib.closing(Host()) as host:
        process = gunicorn(
            host, *options, worker=worker, ETHERWS_SERVER_BRIDGE="br0",
            ETHERWS_SERVER_HTPASSWD=str(folder / "passwords"), ETHERWS_SERVER_POLICY=str(folder / "policy.toml"),
        )  # fmt: skip
        # It is there before any client, to be bridged.
        until(lambda: "ethws0" in host.links(), lambda: f"ethws0 to appear; {process.output}")
        yield Running(host, worker, tls, process, authority)
    assert "Traceback" not in process.output, process.output
    assert process.output.count("better run gunicorn with -k etherws.worker.Worker") == 1
    assert ("version 1 of the wire only" in process.output) == (worker == WEBSOCKET)


def hears(peer: Peer, wanted: bytes) -> None:
    """Wait until a client of version 1 gets this frame."""
    while (got := peer.frame()) != (0x82, wanted):
        assert got[0] != 0x88, f"the server closed the tunnel: {got!r}"


def closed(peer: Peer) -> tuple[int, str]:
    """The server's Close: code and reason."""
    while (got := peer.frame())[0] != 0x88:
        pass
    return struct.unpack(">H", got[1][:2])[0], got[1][2:].decode()


def test_frames_pass_both_ways_between_our_client_and_a_machine_behind(running: Running) -> None:
    host = running.host
    uri = f"{'wss' if running.tls else 'ws'}://localhost/"
    client = host.etherws(
        "client", "--foreground", uri, "--cacert", str(running.authority.cert), "--device", "far0",
        env={"ETHERWS_CLIENT_USER": "alice:sesame"},
    )  # fmt: skip
    client.says("connected")
    # It is offered version 2, and an early 101 is no sign of a hop that removed anything.
    assert "version 1" not in client.output
    far, near = host.frames("far0"), host.frames("br0")
    until(lambda: running.port("ethws0"), "the port")
    for size in (14, 60, 1514):
        far.send(frame(size, to=b"\xff" * 6))
        assert near.receive() == frame(size, to=b"\xff" * 6)
        near.send(frame(size, to=b"\xff" * 6, seed=1))
        assert far.receive() == frame(size, to=b"\xff" * 6, seed=1)
    client.stop()


def test_version_2_is_agreed_on_where_the_101_is_ours(running: Running) -> None:
    peer = running.peer()
    peer.say(
        request(
            Authorization=basic("alice:sesame"),
            Sec_WebSocket_Protocol="etherws.v2",
            Etherws_Features=features.VERSION_2,
        )
    )
    head = peer.head()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert (b"etherws.v2" in head) == (not running.early)
    peer.close()


def test_frames_that_come_with_the_request_are_kept(running: Running) -> None:
    frames = running.host.frames("br0")
    sent = [frame(size, to=b"\xff" * 6) for size in (14, 100, 1514) for _ in range(20)]
    peer = running.peer()
    peer.say(request(Authorization=basic("alice:sesame")) + b"".join(masked(0x82, each) for each in sent))
    assert [frames.receive() for _ in sent] == sent
    peer.close()


@pytest.mark.parametrize(
    ("name", "status"), [("alice:wrong", b"401"), ("mallory:sesame", b"403")], ids=["password", "policy"]
)
def test_a_refused_client_learns_why_and_none_of_its_frames_passes(running: Running, name: str, status: bytes) -> None:
    frames = running.host.frames("br0")
    peer, other = running.peer(), running.join("bob")
    peer.say(request(Authorization=basic(name)) + masked(0x82, frame(100, to=b"\xff" * 6)))
    head = peer.head()
    if running.early:
        assert head.startswith(b"HTTP/1.1 101 ")
        code, reason = closed(peer)
        assert code == 1008
        assert reason.startswith(f"{status.decode()} ")
    else:
        assert head.startswith(b"HTTP/1.1 " + status)
    # The next frame on the bridge is another's.
    other.say(masked(0x82, frame(101, to=b"\xff" * 6)))
    assert frames.receive() == frame(101, to=b"\xff" * 6)
    other.close()


@pytest.mark.parametrize("running", [(WEBSOCKET, True)], indirect=True, ids=["ketWorker wss"])
def test_our_client_understands_a_refusal_after_the_101(running: Running) -> None:
    uri = f"{'wss' if running.tls else 'ws'}://localhost/"
    client = running.host.etherws(
        "client", "--foreground", uri, "--cacert", str(running.authority.cert), "--device", "no0",
        "--no-retry-on-auth-failure", env={"ETHERWS_CLIENT_USER": "alice:wrong"},
    )  # fmt: skip
    assert client.ends() == 77
    assert "401 Unauthorized" in client.output
    assert "lost" not in client.output
    assert "connected" not in client.output


def test_a_path_that_is_none_is_refused(running: Running) -> None:
    peer = running.peer()
    peer.say(request("GET /other HTTP/1.1"))
    if running.early:
        assert peer.head().startswith(b"HTTP/1.1 101 ")
        code, words = closed(peer)
        assert code == 1008
        assert words.startswith("404 Not Found; there is no tunnel at this path (refusal ")
    else:
        assert peer.head().startswith(b"HTTP/1.1 404 ")


def test_the_policy_is_in_force(running: Running) -> None:
    frames, peer = running.host.frames("br0"), running.join("carol")
    other = frame(100, to=b"\xff" * 6)
    own = frame(100, to=b"\xff" * 6, source=MAC)
    peer.say(masked(0x82, other) + masked(0x82, own))
    assert frames.receive() == own
    peer.close()


def test_a_lost_client_gets_its_port_back(running: Running) -> None:
    indexes = []
    for _ in range(2):
        # The second comes before it is known that the first was lost.
        peer = running.join("carol", Etherws_Resume="a" * 22)
        peer.say(masked(0x82, frame(60, to=b"\xff" * 6, source=MAC)))
        indexes.append(until(lambda: running.port("carol"), "the port")["index"])
    assert indexes[0] == indexes[1]
    peer.end()


def test_a_wrong_frame_ends_only_its_own_tunnel(running: Running) -> None:
    wrong, right = running.join("alice"), running.join("bob")
    # Not masked.
    wrong.say(b"\x82\x01x")
    assert closed(wrong)[0] == 1002
    running.host.frames("br0").send(frame(200, to=b"\xff" * 6))
    hears(right, frame(200, to=b"\xff" * 6))
    right.say(masked(0x88, b"\x03\xe8"))
    assert closed(right)[0] == 1000


@pytest.mark.parametrize(
    ("worker", "options"),
    [("gevent", ["--timeout", "1"]), (WEBSOCKET, ["--preload"]), ("gevent_pywsgi", [])],
    ids=["gevent", "WebSocket, preloaded", "pywsgi"],
)
def test_sigterm_closes_the_tunnels_on_a_unix_socket_and_removes_what_was_made(
    host: Host, tmp_path: Path, worker: str, options: list[str]
) -> None:
    path, passwords = str(tmp_path / "sock"), tmp_path / "passwords"
    names = ("alice", "bob", "carol")
    for name in names:
        passwd.set_password(passwords, name, "sesame", cost=4)
    running = gunicorn(
        host, "-b", f"unix:{path}", *options, worker=worker, ETHERWS_SERVER_BRIDGE="br0",
        ETHERWS_SERVER_HTPASSWD=str(passwords), ETHERWS_SERVER_TRUSTED_PROXY="unix",
    )  # fmt: skip
    running.says("Booting worker")
    until(lambda: os.path.exists(path), "the socket")
    if "--preload" not in options:
        # Before any client. With --preload the fork comes later than the application.
        until(lambda: "ethws0" in host.links(), lambda: f"ethws0 to appear; {running.output}")

    def peer(login: str) -> UnixPeer:
        found = UnixPeer(host, path)
        found.say(request(Authorization=basic(login), X_Forwarded_For="198.51.100.7"))
        assert found.head()
        return found

    # The proxy on the UNIX socket is trusted.
    peer("alice:wrong").rest()
    running.says("198.51.100.7: login refused")
    # Each has a name of its own: who logs in later ends an earlier session of the same name, and of logins that wait
    # the last may be the first.
    peers = [peer(f"{name}:sesame") for name in names]
    frames = host.frames("br0")
    # After its 101 a client may still have to wait for its login: it has joined when its frame has come.
    joined = [frame(61 + number, to=b"\xff" * 6) for number in range(len(peers))]
    for each, first in zip(peers, joined, strict=True):
        each.say(masked(0x82, first))
    assert {frames.receive() for _ in peers} == set(joined)
    # Two of one address, which gevent-websocket does not expect.
    for each in peers[:2]:
        each.say(masked(0x88, b"\x03\xe8"))
        each.end()
    peers[2].say(masked(0x82, frame(60, to=b"\xff" * 6)))
    assert frames.receive() == frame(60, to=b"\xff" * 6)
    running.signal(signal.SIGTERM)
    assert closed(peers[2]) == (1001, "")
    peers[2].close()
    assert running.ends(8) == 0
    assert not {"ethws0", "br0"} & set(host.links())
    assert "Traceback" not in running.output, running.output
    assert '" 101' in running.output or worker != "gevent_pywsgi"


def test_a_worker_that_reached_max_requests_or_is_reloaded_closes_its_tunnels(host: Host) -> None:
    running = gunicorn(host, "-b", "127.0.0.1:80", "--max-requests", "2", worker="gevent", ETHERWS_SERVER_BRIDGE="br0")
    until(lambda: "ethws0" in host.links(), "ethws0 to appear")
    peers = [Peer(host).upgraded() for _ in range(2)]
    # The ports stay: another worker comes.
    for peer in peers:
        assert closed(peer)[0] == 1012
        peer.close()
    running.says("Booting worker", times=2)
    until(lambda: "ethws0" in host.links(), "ethws0 to appear again")
    peer = Peer(host).upgraded()
    running.signal(signal.SIGHUP)
    assert closed(peer)[0] == 1012
    # A worker that is told to end before it listens to signals does not hear it, and gunicorn waits for half a minute.
    # Until it is there, the old one may still take connections, and refuses them.
    until(lambda: lets_in(host), "the next worker to let a client in")


def lets_in(host: Host) -> bool:
    """Whether a client is let in now."""
    peer = Peer(host)
    peer.say(request())
    return peer.head().startswith(b"HTTP/1.1 101 ")


def test_a_client_certificate_names_the_client(host: Host, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("[default]\nconnect = false\n[client.laptop]\nconnect = true\n")
    pair, card = authority.issue(), authority.issue(("laptop",))
    gunicorn(
        host, "-b", "127.0.0.1:443", "--keyfile", str(pair.key), "--certfile", str(pair.cert),
        "--ca-certs", str(authority.cert), "--cert-reqs", "2", worker="gevent",
        ETHERWS_SERVER_BRIDGE="br0", ETHERWS_SERVER_POLICY=str(tmp_path / "policy.toml"),
    )  # fmt: skip
    until(lambda: "ethws0" in host.links(), "ethws0 to appear")
    client = host.etherws(
        "client", "--foreground", "wss://localhost/", "--cacert", str(authority.cert), "--device", "far0",
        "--certfile", str(card.cert), "--keyfile", str(card.key),
    )  # fmt: skip
    client.says("connected")
    far, near = host.frames("far0"), host.frames("br0")
    far.send(frame(60, to=b"\xff" * 6))
    assert near.receive() == frame(60, to=b"\xff" * 6)


@pytest.mark.parametrize("worker", ["sync", "asgi"])
def test_a_worker_that_cannot_carry_tunnels_ends_with_the_reason(host: Host, worker: str) -> None:
    running = gunicorn(host, "-b", "127.0.0.1:80", worker=worker)
    assert running.ends() != 0
    assert "run gunicorn with -k etherws.worker.Worker" in running.output
    assert "Traceback" not in running.output, running.output


def test_a_proxy_protocol_that_cannot_be_read_ends_the_worker(host: Host) -> None:
    running = gunicorn(
        host, "-b", "127.0.0.1:80", worker="gevent", ETHERWS_SERVER_PROXY_PROTOCOL="1",
        ETHERWS_SERVER_TRUSTED_PROXY="127.0.0.1",
    )  # fmt: skip
    assert running.ends() != 0
    assert "GeventWorker cannot read the PROXY header" in running.output
    assert "Traceback" not in running.output, running.output
