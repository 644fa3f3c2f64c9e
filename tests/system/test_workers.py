"""``etherws server --workers 2``: where clients go, a worker that is killed, and the start and the end of the whole."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.frames import frame
from tests.lab.hosts import Host, Process, until
from tests.lab.peer import Peer, masked, request


class Running:
    """A server with two workers, in a bridge."""

    def __init__(self, host: Host, *options: str) -> None:
        self.host = host
        arguments = ["--foreground", "--workers", "2", "--bridge", "br0", "--address", "127.0.0.1", "--port", "80"]
        self.process: Process = host.etherws("server", *arguments, *options)
        self.process.says("is up, listening")
        #: Where its rules are.
        self.policy: Path

    def join(self, number: int) -> Peer:
        """A client that comes back as the same."""
        peer = Peer(self.host)
        peer.say(request(Etherws_Resume=f"{number:022d}"))
        assert peer.head().startswith(b"HTTP/1.1 101 ")
        return peer

    def workers(self) -> list[int]:
        """The PIDs of the workers."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in found.split()]

    def interfaces(self) -> dict[str, int]:
        """The interfaces of clients, and their numbers."""
        return {name: link["index"] for name, link in self.host.links().items() if name.startswith("ethws")}

    def sessions(self) -> list[int]:
        """How many clients each worker has."""
        said = self.process.output.count(" sessions\n")
        self.process.signal(signal.SIGUSR1)
        self.process.says(" sessions\n", times=said + 2)
        return [int(count) for count in re.findall(r"worker \d: (\d+) sessions", self.process.output)][-2:]


#: Tests with the same server follow each other on one worker of pytest.
with_shared = pytest.mark.xdist_group("shared-workers")


@pytest.fixture(scope="module")
def shared(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for several tests, each of which leaves none of its clients behind."""
    (policy := tmp_path_factory.mktemp("workers") / "policy").write_text("# nothing\n")
    with contextlib.closing(Host()) as host:
        found = Running(host, "--policy", str(policy))
        found.policy = policy
        yield found


@pytest.fixture
def running(host: Host) -> Running:
    """A server of the test's own."""
    return Running(host)


def leave(peers: list[Peer]) -> None:
    """Close in order, so that no port is kept."""
    for peer in peers:
        peer.say(masked(0x88, b"\x03\xe8"))
    for peer in peers:
        peer.rest()


@with_shared
def test_clients_go_to_both_workers_and_meet_in_the_bridge(shared: Running) -> None:
    running = shared
    # All connections are there before any is accepted.
    peers = [Peer(running.host) for _ in range(40)]
    for number, peer in enumerate(peers):
        peer.say(request(Etherws_Resume=f"{number:022d}"))
    for peer in peers:
        assert peer.head().startswith(b"HTTP/1.1 101 ")
    assert sum(running.sessions()) == 40
    # A worker that gets no time from a busy machine takes fewer. How evenly they go: tests/server/test_accepting.py.
    assert min(running.sessions()) >= 4
    assert len(running.interfaces()) == 40
    peers[0].say(masked(0x82, frame(100, to=b"\xff" * 6)))
    for peer in peers[1:]:
        while peer.frame() != (0x82, frame(100, to=b"\xff" * 6)):
            pass
    # One line says that all is up, and nothing is said twice.
    assert running.process.output.count("is up") == 1
    assert running.process.output.count("keeps CAP_NET_ADMIN") <= 1
    leave(peers)
    # The next test counts them. They are removed many at a time, a moment after the last client has left.
    until(lambda: list(running.interfaces()) == ["ethws0"], lambda: f"the others to go: {running.interfaces()}")


@with_shared
def test_a_worker_that_is_killed_takes_only_its_clients_along(shared: Running) -> None:
    running = shared
    peers = {number: running.join(number) for number in range(12)}
    before = running.interfaces()
    first = running.workers()[0]
    os.kill(first, signal.SIGKILL)
    gone = {number for number, peer in peers.items() if not peer.alive()}
    assert 0 < len(gone) < 12
    # They come back before there is a new worker, and to the same interfaces.
    again = [running.join(number) for number in gone]
    assert running.interfaces() == before
    assert all(peer.alive() for number, peer in peers.items() if number not in gone)
    running.process.says(f"(pid {first}) is gone: it was ended by SIGKILL; its ")
    running.process.says("has taken its place")
    # New ones go to the worker that has fewer.
    other = max(running.sessions())
    more = [running.join(number) for number in range(20, 20 + other)]
    assert max(running.sessions()) - min(running.sessions()) <= 4
    assert all(peer.alive() for peer in again + more)
    # And frames go between those that stayed and those that came back.
    stayed = [peer for number, peer in peers.items() if number not in gone]
    stayed[0].say(masked(0x82, frame(100, to=b"\xff" * 6)))
    while again[0].frame() != (0x82, frame(100, to=b"\xff" * 6)):
        pass
    leave([*stayed, *again, *more])


@with_shared
def test_files_are_read_again_by_all_workers(shared: Running) -> None:
    peers = [shared.join(number) for number in range(6)]
    shared.policy.write_text("[default]\nconnect = false\n")
    shared.process.signal(signal.SIGHUP)
    for peer in peers:
        while peer.frame()[0] != 0x88:
            pass
    shared.policy.write_text("# nothing\n")


def test_all_tunnels_are_closed_with_1001_and_nothing_is_left(running: Running) -> None:
    peers = [running.join(number) for number in range(4)]
    workers = running.workers()
    # As systemctl stop and Ctrl-C do: the workers get the signal as well, and leave it to their parent.
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    running.process.signal(signal.SIGTERM)
    for peer in peers:
        while (got := peer.frame())[0] != 0x88:
            pass
        assert got == (0x88, b"\x03\xe9")
        peer.close()
    assert running.process.ends() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert not {"ethws0", "br0"} & set(running.host.links())
    assert "killed" not in running.process.output
    assert "Traceback" not in running.process.output


def test_workers_do_not_outlive_their_parent(running: Running) -> None:
    workers = running.workers()
    # One that is stopped cannot see the end of its channel.
    os.kill(workers[0], signal.SIGSTOP)
    running.process.signal(signal.SIGKILL)
    running.process.ends()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the workers to end")
    until(lambda: "ethws0" not in running.host.links(), "the interface to go")


@pytest.mark.parametrize("value", ["65"])
def test_a_number_of_workers_that_is_none_is_refused(host: Host, value: str) -> None:
    process = host.etherws("server", "--foreground", env={"ETHERWS_SERVER_WORKERS": value})
    assert process.ends() == 2
    assert "workers" in process.output.lower()


@pytest.fixture
def in_background(host: Host, tmp_path: Path) -> Iterator[int]:
    pidfile = tmp_path / "pid"
    process = host.etherws("server", "--workers", "2", "--address", "127.0.0.1", "--pidfile", str(pidfile))
    assert process.ends() == 0, process.output
    pid = int(pidfile.read_text())
    yield pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the process in the background to end")


def test_in_the_background_the_pid_file_is_the_parents(host: Host, in_background: int) -> None:
    children = Path(f"/proc/{in_background}/task/{in_background}/children").read_text().split()
    assert len(children) == 2
    assert Peer(host).upgraded()
    # Nobody waits for the output of the start: it is closed (ends() read it to its end).
    assert {os.readlink(f"/proc/{in_background}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
