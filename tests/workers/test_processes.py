"""Real workers: what holds for a client holds at each of them, and one that hangs holds up nobody."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from time import monotonic

import pytest

from etherws.access import passwd
from etherws.server.login_queue import FREE_FAILURES
from tests.lab.frames import frame
from tests.lab.hosts import Host, until
from tests.lab.lan import source
from tests.lab.peer import Peer
from tests.lab.policy_lan import closed, hears_at_last, says
from tests.lab.workers import Workers

#: One server for all tests, on one worker of pytest.
pytestmark = pytest.mark.xdist_group("workers")

POLICY = """
[client."bob"]
connections = 2
macs = 2
[client."carol"]
connections = 2
rate-up = "400 kbit/s"
"""


def broadcast(number: int, size: int = 100) -> bytes:
    """A frame from one of many addresses."""
    return frame(size, to=b"\xff" * 6, source=source(number))


def hears_all(peer: Peer, *frames: bytes) -> None:
    """Wait for these frames, in whatever order."""
    left = set(frames)
    while left:
        left.discard(peer.frame()[1])


@pytest.fixture(scope="module")
def host(network: None) -> Iterator[Host]:
    """The machine of all these tests."""
    with contextlib.closing(Host()) as machine:
        yield machine


@pytest.fixture(scope="module")
def workers(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Workers:
    """Two, with a policy; each client has its name for a password. Each test has clients of its own."""
    folder = tmp_path_factory.mktemp("workers")
    for name in ("alice", "bob", "carol", "dave", "erin"):
        passwd.set_password(folder / "passwords", name, name, cost=4)
    (folder / "policy.toml").write_text(POLICY)
    files = {"htpasswd": str(folder / "passwords"), "policy": str(folder / "policy.toml")}
    return Workers(host, 2, ping_interval=0, **files)


def test_a_policy_holds_for_all_workers_together(workers: Workers, host: Host) -> None:
    # One connection at once: the newer one replaces the older, on the same interface.
    first = workers.join(0, "alice")
    index = host.links()["ethws0"]["index"]
    second = workers.join(1, "alice")
    assert closed(first)[0] == 1008
    workers.process.says("'alice' joined on ethws0", times=2)
    assert host.links()["ethws0"]["index"] == index
    # Source addresses: two for each of two connections, and no others when they come again.
    for _ in range(2):
        bobs = [workers.join(0, "bob"), workers.join(1, "bob")]
        for number, bob in enumerate(bobs):
            for address in range(4):
                says(bob, broadcast(10 * number + address))
            hears_at_last(second, broadcast(10 * number + 1))
    # A rate: so many bytes at once, which each worker alone would let pass in half the time.
    carols = [workers.join(0, "carol"), workers.join(1, "carol")]
    began = monotonic()
    for number in range(20):
        for which, carol in enumerate(carols):
            says(carol, broadcast(100 + which, 1400 + number))
    hears_all(second, *(broadcast(100 + which, 1419) for which in range(2)))
    # What came passes at once, and is waited for afterwards.
    for which, carol in enumerate(carols):
        says(carol, broadcast(100 + which, 1500))
    hears_all(second, *(broadcast(100 + which, 1500) for which in range(2)))
    # 56,380 bytes at 50,000 in a second: a slow machine takes longer, none less.
    assert monotonic() - began > 0.9
    # Names never clash.
    assert set(host.links()) == {"lo", "br0", *(f"ethws{number}" for number in range(5))}


def test_wrong_logins_are_counted_for_all_workers_together(workers: Workers) -> None:
    for _ in range(FREE_FAILURES):
        assert workers.asked(0, "alice:wrong", "127.0.0.9").startswith(b"HTTP/1.1 401 ")
    assert workers.asked(1, "alice:wrong", "127.0.0.9").startswith(b"HTTP/1.1 429 ")


def test_a_worker_that_is_stopped_holds_up_nobody(workers: Workers, host: Host) -> None:
    workers.join(0, "alice")
    erin, dave = workers.join(1, "erin"), workers.join(1, "dave")
    links = set(host.links())
    os.kill(workers.pids[0], signal.SIGSTOP)
    # Others go on. A new connection of the client that is stuck is answered, and gets its port when the worker is dead.
    assert workers.asked(1, "alice:alice").startswith(b"HTTP/1.1 503 ")
    says(erin, broadcast(2))
    hears_at_last(dave, broadcast(2))
    workers.process.says(f"the worker with PID {workers.pids[0]} must be ended: it does not answer for 2.5 s")
    until(lambda: workers.asked(1, "alice:alice").startswith(b"HTTP/1.1 101 "), "alice to be let in")
    assert set(host.links()) <= links
