"""gunicorn with several workers: they share the ports, which outlive reloads, upgrades and each worker, but not all."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.hosts import Host, Process, until
from tests.lab.peer import Peer, masked, request
from tests.lab.servers import gunicorn

pytest.importorskip("gunicorn", reason="gunicorn is not installed")

SERVICE_RESTART = b"\x03\xf4"


class Running:
    """A gunicorn with some workers, in a bridge."""

    def __init__(self, host: Host, *options: str, worker: str = "etherws.worker.Worker", **env: str) -> None:
        self.host = host
        self.process: Process = gunicorn(
            host, "-b", "127.0.0.1:80", *options, worker=worker, ETHERWS_SERVER_BRIDGE="br0", **env
        )
        until(lambda: "ethws0" in host.links() or not self.process.running, lambda: f"ethws0: {self.process.output}")

    def join(self, number: int) -> Peer:
        """A client that comes back as the same."""
        joined: list[Peer] = []

        def try_once() -> bool:
            # gunicorn's own worker still accepts for a moment when it is about to end; the kernel resets what is in the
            # queue of one that was killed.
            with contextlib.suppress(ConnectionError):
                peer = Peer(self.host)
                peer.say(request(Etherws_Resume=f"{number:022d}"))
                if peer.head().startswith(b"HTTP/1.1 101 "):
                    joined.append(peer)
            return bool(joined)

        until(try_once, lambda: f"a worker that takes a client: {self.process.output}")
        return joined[0]

    def interfaces(self) -> dict[str, int]:
        """The interfaces, and their numbers."""
        return {name: link["index"] for name, link in self.host.links().items() if name.startswith(("ethws", "br"))}

    def booted(self, count: int) -> list[int]:
        """The PIDs of all workers so far, when there are so many."""
        self.process.says("Booting worker", times=count)
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.process.output)]

    def ports_process(self) -> int:
        """The PID of the port process: it has a descriptor of the TAP, and is no child of gunicorn."""
        namespace = f"/proc/{self.process.pid}/ns/net"
        for each in Path("/proc").iterdir():
            if each.name.isdecimal():
                with contextlib.suppress(OSError):
                    if (
                        os.path.samefile(each / "ns/net", namespace)
                        and b"port_process" in (each / "cmdline").read_bytes()
                    ):
                        return int(each.name)
        raise AssertionError(self.process.output)


#: Tests with the same server follow each other on one worker of pytest.
with_shared = pytest.mark.xdist_group("shared-gunicorn")


@pytest.fixture(scope="module")
def shared(network: None) -> Iterator[Running]:
    with contextlib.closing(Host()) as host:
        yield (running := Running(host, "-w", "2"))
    assert "Traceback" not in running.process.output, running.process.output


def close_code(peer: Peer) -> bytes:
    """With what the server closes."""
    while (got := peer.frame())[0] != 0x88:
        pass
    peer.say(masked(0x88, got[1]))
    peer.close()
    return got[1]


@with_shared
def test_the_ports_outlive_a_reload_with_all_clients(shared: Running) -> None:
    peers = [shared.join(number) for number in range(6)]
    before, process = shared.interfaces(), shared.ports_process()
    count = len(shared.booted(2))
    shared.process.signal(signal.SIGHUP)
    assert [close_code(peer) for peer in peers] == [SERVICE_RESTART] * 6
    # An old worker that had none of the six may still take a client, only to end its connection as well.
    shared.booted(count + 2)
    shared.process.says("Worker exiting", times=2)
    again = [shared.join(number) for number in range(6)]
    assert shared.interfaces() == before
    assert shared.ports_process() == process
    assert all(peer.alive() for peer in again)


@with_shared
def test_a_worker_that_is_killed_takes_only_its_clients_along(shared: Running) -> None:
    peers = {number: shared.join(number) for number in range(8)}
    before = shared.interfaces()
    workers = shared.booted(2)
    victim = workers[-1]
    os.kill(victim, signal.SIGKILL)
    shared.booted(len(workers) + 1)
    gone = {number for number, peer in peers.items() if not peer.alive()}
    assert 0 < len(gone) < 8
    for number in gone:
        assert shared.join(number).alive()
    assert shared.interfaces() == before
    assert all(peer.alive() for number, peer in peers.items() if number not in gone)


@with_shared
def test_another_gunicorn_with_these_interfaces_is_told_so(shared: Running) -> None:
    # One with others does not meet it: the name of its socket is another one (tests/gunicorn/test_port_service.py).
    other = gunicorn(shared.host, "-b", "127.0.0.1:81", ETHERWS_SERVER_BRIDGE="br0")
    assert other.ends() != 0
    assert f"another gunicorn (pid {shared.process.pid}) has the interfaces ethws%d" in other.output
    assert "ETHERWS_SERVER_DEVICE" in other.output
    assert "ethws0" in shared.host.links()


@pytest.fixture
def upgraded(host: Host, tmp_path: Path) -> Iterator[tuple[Running, int]]:
    """A gunicorn, and the master that is to take over from it, which ends with the test."""
    running = Running(host, "-w", "1", "-p", str(pidfile := tmp_path / "pid"), "--preload")
    running.process.signal(signal.SIGUSR2)
    until((new := Path(f"{pidfile}.2")).exists, lambda: f"the new master; {running.process.output}")
    master = until(new.read_text, "its PID")
    try:
        running.booted(2)
        # The port process knows the new master when its worker has said hello, some time after its line in the log.
        until(lambda: knows(running.ports_process(), int(master)), lambda: f"its worker: {running.process.output}")
        yield running, int(master)
    finally:
        with contextlib.suppress(OSError):
            for pid in (*children(int(master)), int(master)):
                os.kill(pid, signal.SIGKILL)
    running.process.ends()


def knows(port_process: int, master: int) -> bool:
    """Whether the port process watches this master: it has a descriptor of it (proc(5), fdinfo)."""
    with contextlib.suppress(FileNotFoundError):
        for path in Path(f"/proc/{port_process}/fdinfo").iterdir():
            if f"\nPid:\t{master}\n" in path.read_text():
                return True
    return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_ports_outlive_an_upgrade_but_not_both_masters(upgraded: tuple[Running, int]) -> None:
    running, master = upgraded
    peers = [running.join(number) for number in range(3)]
    before = running.interfaces()
    # Both serve now. The old one goes.
    running.process.signal(signal.SIGTERM)
    until(lambda: not running.process.running, "the old master to end")
    for peer in peers:
        # Those of the new worker stay.
        if not peer.alive():
            peer.close()
    again = [running.join(number) for number in range(3)]
    assert running.interfaces() == before
    assert all(peer.alive() for peer in again)
    # Then the new one, by force, with its workers: nothing is left.
    for pid in (master, *children(master)):
        os.kill(pid, signal.SIGKILL)
    running.process.ends()
    until(lambda: not running.interfaces(), lambda: f"all to go: {running.process.output}")


def test_gunicorns_own_worker_shares_them_too(host: Host) -> None:
    running = Running(host, "-w", "2", worker="gevent")
    running.booted(2)
    peers = [running.join(number) for number in range(6)]
    before = running.interfaces()
    assert len(before) == 7
    running.process.signal(signal.SIGHUP)
    assert [close_code(peer) for peer in peers] == [SERVICE_RESTART] * 6
    again = [running.join(number) for number in range(6)]
    assert running.interfaces() == before
    assert all(peer.alive() for peer in again)
    running.process.stop()
    until(lambda: not running.interfaces(), "all to go")


def test_without_the_right_to_make_interfaces_the_worker_says_so(host: Host) -> None:
    running = gunicorn(host, "-b", "127.0.0.1:80", ETHERWS_SERVER_DEVICE="lo")
    assert running.ends() != 0
    assert "lo" in running.output
    assert "App failed to load" in running.output
    assert "Traceback" not in running.output
