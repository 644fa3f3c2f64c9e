"""A check beside tunnels, on a real server of several processes: who may, how many, and that no LAN hears of it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from etherws.tunnel.check_frames import SIZE_MAX, Kind, Message, read, write
from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import Host, until
from tests.lab.passwords import hashed
from tests.lab.peer import VERSION_2, Peer, basic, masked, request
from tests.lab.workers import FIRST, Workers

POLICY = """
[client.kept-out]
connect = false
[client.slow]
rate-up = "1 Mbit/s"
"""

with_server = pytest.mark.xdist_group("checks")
pytestmark = with_server


@pytest.fixture(scope="module")
def server(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Workers]]:
    """A server with two workers, which knows four clients."""
    folder = tmp_path_factory.mktemp("checks")
    (policy := folder / "policy").write_text(POLICY)
    (passwords := folder / "passwords").write_text(
        "".join(f"{name}:{hashed(name)}\n" for name in ("alice", "bob", "slow", "kept-out"))
    )
    passwords.chmod(0o600)
    with contextlib.closing(Host()) as host:
        yield host, Workers(host, 2, policy=str(policy), htpasswd=str(passwords))


def asked(host: Host, name: str, worker: int = 0, check: str = "check") -> tuple[Peer, bytes]:
    """A client that asks this worker for a check, and the answer's head."""
    peer = Peer(host, ("127.0.0.1", FIRST + worker))
    wanted = {**VERSION_2, "Etherws_Features": f"v2, {check}"}
    peer.say(request(Authorization=basic(f"{name}:{name}"), **wanted))
    return peer, peer.head()


def checking(host: Host, name: str, worker: int = 0, check: str = "check") -> Peer:
    """One that has got it, as soon as the one before has ended."""

    def got() -> Peer | None:
        peer, head = asked(host, name, worker, check)
        if head.startswith(b"HTTP/1.1 101 "):
            assert f"Etherws-Features: v2, {check}, mtu=1500, proof=".encode() in head
            return peer
        peer.close()
        return None

    found: Peer = until(got, "the check before to end")
    return found


def said(*packets: bytes) -> bytes:
    """A client's message of these packets."""
    return masked(0x82, b"".join(len(packet).to_bytes(4, "big") + packet for packet in packets))


def answer(peer: Peer) -> Message:
    """The next message of the server that is no bulk."""
    while True:
        first, payload = peer.frame()
        assert first == 0x82
        message = read(payload[4 : 4 + int.from_bytes(payload[:4], "big")])
        if message.kind is not Kind.DATA:
            return message


def test_a_check_makes_no_interface_and_touches_no_tunnel_of_the_same_client(server: tuple[Host, Workers]) -> None:
    host, workers = server
    tunnel = workers.join(0, "alice")
    before = {name: (link["index"], link["flags"]) for name, link in host.links().items()}
    peer = checking(host, "alice", 1)
    peer.say(said(write(Message(Kind.PROBE, 7, 1, value=SIZE_MAX))))
    found = answer(peer)
    assert (found.kind, found.number, found.size) == (Kind.ANSWER, 7, SIZE_MAX)
    assert {name: (link["index"], link["flags"]) for name, link in host.links().items()} == before
    # The policy allows alice one connection: the check is none.
    tunnel.say(masked(0x89, b"there?"))
    while tunnel.frame() != (0x8A, b"there?"):
        pass
    peer.end()
    tunnel.end()
    workers.process.says("checked the path")


def test_one_measures_at_a_time_whichever_worker_it_comes_to(server: tuple[Host, Workers]) -> None:
    host, _ = server
    first = checking(host, "alice", 0)
    for worker in (0, 1):
        peer, head = asked(host, "bob", worker)
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: " in head
        assert b"another check is running, and one runs at a time" in peer.rest()
        peer.close()
    # Silent ones are others.
    idle = [checking(host, "bob", worker, "check=idle") for worker in (0, 1)]
    first.end()
    for peer in [checking(host, "bob", 1), *idle]:
        peer.end()


def test_who_may_not_join_may_not_check(server: tuple[Host, Workers]) -> None:
    host, _ = server
    assert asked(host, "kept-out")[1].startswith(b"HTTP/1.1 403 ")
    assert asked(host, "nobody")[1].startswith(b"HTTP/1.1 401 ")


def test_the_rate_of_the_policy_holds_and_is_told(server: tuple[Host, Workers]) -> None:
    host, _ = server
    peer = checking(host, "slow", 1)
    peer.say(said(write(Message(Kind.ASK, 1))))
    report = answer(peer).report
    assert report
    assert (report.limit_up, report.policy_up, report.policy_down) == (1_000_000, True, False)
    peer.end()


def test_a_flood_by_one_who_checks_keeps_no_frame_of_others_from_its_way(server: tuple[Host, Workers]) -> None:
    host, workers = server
    tunnel, other = workers.join(0, "alice"), workers.join(0, "bob")
    flood = checking(host, "alice", 0)
    flood._socket.setblocking(False)
    bulk, left = said(*[write(Message(Kind.DATA), 1514)] * 40), b""
    for number in range(200):
        # It sends all that it can, and reads nothing.
        with contextlib.suppress(BlockingIOError):
            while True:
                left = left or bulk
                left = left[flood._socket.send(left) :]
        sent = frame(60, to=BROADCAST, source=b"\x02\xee\0\0\0\x01", seed=number)
        tunnel.say(masked(0x82, sent))
        while sent not in other.frame()[1]:
            pass
    flood.reset()
    tunnel.end()
    other.end()


def test_the_check_of_a_worker_that_is_killed_is_over(server: tuple[Host, Workers]) -> None:
    # The last test: one worker is left then.
    host, workers = server
    checking(host, "alice", 0)
    assert asked(host, "alice", 1)[1].startswith(b"HTTP/1.1 503 ")
    os.kill(workers.pids[0], signal.SIGKILL)
    checking(host, "alice", 1).end()
