"""Workers of gunicorn and the process that has their ports: how they meet, who is refused, and when it ends."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent.socket import socket as GeventSocket

from etherws.errors import DeviceError, WorkerError
from etherws.gunicorn import find_port_process, hello, port_service
from etherws.gunicorn.find_port_process import find
from etherws.gunicorn.hello import Peer, socket_name
from etherws.gunicorn.port_service import PortService
from etherws.log_limit import BURST
from etherws.settings import ServerSettings
from tests.lab.hosts import PATIENCE, Host

SETTINGS = ServerSettings(device="kept%d", bridge="br0")


class FakePorts:
    """Stands for the ports."""

    name = "kept0"

    def __init__(self) -> None:
        self.closed = False
        self.checks: Any = None

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def close(self) -> None:
        self.closed = True


class Case:
    """The service in this process, as soon as a worker wants one."""

    def __init__(self) -> None:
        self.ports: list[FakePorts] = []
        self.failure: DeviceError | None = None
        self.services: list[gevent.Greenlet[..., None]] = []
        self.masters: list[subprocess.Popen[bytes]] = []
        self.idle = 60.0
        #: Who has started whom, as the kernel would say.
        self.parents: dict[int, int] = {}

    def begin(self, listener: Any, master: int = 0) -> None:
        """As Launcher."""
        sock = GeventSocket(fileno=os.dup(listener.fileno()))
        service = PortService(sock, os.geteuid(), self.make, self.idle, master)

        def run() -> None:
            with sock:
                service.run()

        self.services.append(gevent.spawn(run))

    def cancel(self) -> None:
        """As Launcher."""

    def make(self, settings: ServerSettings) -> Any:
        gevent.sleep(0.02)
        if self.failure:
            raise self.failure
        self.ports.append(FakePorts())
        return self.ports[-1]

    def master(self) -> int:
        """The PID of a new master."""
        self.masters.append(subprocess.Popen(["sleep", "1000"]))
        return self.masters[-1].pid

    def find(self, *masters: int, **changes: Any) -> Any:
        """What a worker gets, that the first master has started; and that one was started by the second."""
        self.parents.update(zip((os.getpid(), *masters), masters, strict=False))
        return self.ask(*masters, **changes)

    def ask(self, *masters: int, **changes: Any) -> Any:
        """What a process gets that says that these are its masters."""
        sock, table = find(replace(SETTINGS, **changes), masters, sleep=gevent.sleep)
        os.close(table)
        return sock


@pytest.fixture
def case(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    # So that both ends can be in one process.
    monkeypatch.setattr(find_port_process, "socket", gevent.socket)
    monkeypatch.setattr(port_service, "OTHERS", 0.0)
    case = Case()
    monkeypatch.setattr(find_port_process, "Launcher", lambda: case)
    monkeypatch.setattr(hello, "parent_of", lambda pid: case.parents.get(pid, 0))
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        yield case
    for master in case.masters:
        master.kill()
        master.wait()
    gevent.killall(case.services)


def ends(case: Case) -> None:
    gevent.joinall(case.services)
    assert all(ports.closed for ports in case.ports)


def test_workers_that_come_at_once_find_the_same_ports(case: Case) -> None:
    master = case.master()
    finding = [gevent.spawn(case.find, master) for _ in range(5)]
    socks = [each.get() for each in finding]
    assert len(case.services) == len(case.ports) == 1
    # Neither the last worker alone nor the master alone is the end.
    for sock in socks:
        sock.close()
    gevent.sleep(0.3)
    assert not case.ports[0].closed
    again = case.find(master)
    case.masters[0].kill()
    gevent.sleep(0.3)
    assert not case.ports[0].closed
    again.close()
    ends(case)


def test_an_upgrade_has_two_masters_for_a_while(case: Case) -> None:
    first, second, stranger = case.master(), case.master(), case.master()
    one = case.find(first)
    other = case.find(second, first)
    # Now the new one is known by itself, and by itself only.
    third = case.find(second)
    with pytest.raises(WorkerError, match=rf"another gunicorn \(pid {first}, {second}\) has the interfaces kept%d"):
        case.find(stranger)
    case.masters[0].kill()
    case.masters[1].kill()
    gevent.sleep(0.1)
    # Its own are gone, and one worker is about to go: the next gunicorn gets the ports as they are.
    one.close()
    other.close()
    new = case.find(stranger)
    third.close()
    assert len(case.services) == 1
    case.masters[2].kill()
    new.close()
    ends(case)


def test_a_worker_with_other_settings_is_told_which(case: Case) -> None:
    master = case.master()
    sock = case.find(master)
    with pytest.raises(WorkerError, match=r"bridge 'br0' and not 'br1', mtu None and not 1400; restart gunicorn"):
        case.find(master, bridge="br1", mtu=1400)
    # What concerns sessions only may differ, and so may the policy.
    case.find(master, wire=1, policy="/policy").close()
    sock.close()


def test_why_there_are_no_ports_is_told_to_each(case: Case) -> None:
    case.failure = DeviceError("cannot open /dev/net/tun: no such file")
    master = case.master()
    for each in [gevent.spawn(case.find, master) for _ in range(3)]:
        with pytest.raises(WorkerError, match="cannot open /dev/net/tun: no such file"):
            each.get()
    ends(case)


def test_a_master_without_workers_is_not_waited_for_for_ever(case: Case) -> None:
    case.idle = 0.2
    sock = case.find(case.master())
    sock.close()
    ends(case)


def test_nobody_comes_and_it_ends(case: Case) -> None:
    case.idle = 0.1
    with gevent.socket.socket(gevent.socket.AF_UNIX, gevent.socket.SOCK_SEQPACKET) as listener:
        listener.bind(socket_name(SETTINGS.device))
        listener.listen(5)
        case.begin(listener)
    ends(case)
    assert case.ports == []


def test_a_strangers_connection_is_closed(
    case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sock = case.find(case.master())
    monkeypatch.setattr(hello, "peer_of", lambda _: Peer(77, 12345))
    with gevent.socket.socket(gevent.socket.AF_UNIX, gevent.socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(socket_name(SETTINGS.device))
        assert stranger.recv(100) == b""
    assert "user 12345 (pid 77) tried to connect as a worker" in caplog.text
    sock.close()


def test_strangers_cannot_fill_the_log(
    case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sock = case.find(case.master())
    monkeypatch.setattr(hello, "peer_of", lambda _: Peer(77, 12345))
    for _ in range(50):
        with gevent.socket.socket(gevent.socket.AF_UNIX, gevent.socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(socket_name(SETTINGS.device))
            assert stranger.recv(100) == b""
    assert caplog.text.count("tried to connect as a worker") == BURST
    sock.close()


def test_a_process_of_the_same_user_is_no_worker_for_that(case: Case) -> None:
    """Others may run as the same user, such as www-data: they would get interfaces, with rules of their own choice."""
    master, other = case.master(), case.master()
    sock = case.find(master)
    case.parents[os.getpid()] = other
    for said in [(master,), (other,), (other, master), (master, other)]:
        with pytest.raises(WorkerError, match="gunicorn"):
            case.ask(*said)
    sock.close()


def test_nobody_is_faster_than_the_first_worker(case: Case) -> None:
    master, other = case.master(), case.master()
    with gevent.socket.socket(gevent.socket.AF_UNIX, gevent.socket.SOCK_SEQPACKET) as listener:
        listener.bind(socket_name(SETTINGS.device))
        listener.listen(5)
        case.begin(listener, master)
    with pytest.raises(WorkerError, match=rf"another gunicorn \(pid {master}\)"):
        case.find(other)
    case.find(master).close()


def test_a_worker_cannot_name_masters_of_its_choice(case: Case) -> None:
    """The interfaces would stay as long as those run."""
    master, other = case.master(), case.master()
    case.parents[os.getpid()] = master
    case.ask(master, other).close()
    case.masters[0].kill()
    ends(case)


def test_a_connection_that_cannot_be_accepted_is_not_the_last(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_service, "PAUSE", 0.01)
    errors = [OSError(errno.EMFILE, "Too many open files")] * 3
    accept = GeventSocket.accept

    def failing(sock: Any) -> Any:
        if errors:
            raise errors.pop()
        return accept(sock)

    monkeypatch.setattr(GeventSocket, "accept", failing)
    case.find(case.master()).close()
    assert not errors


def test_who_started_a_process_is_known() -> None:
    with subprocess.Popen(["sleep", "1000"]) as child:
        assert hello.parent_of(child.pid) == os.getpid()
        child.kill()
    assert hello.parent_of(child.pid) == 0
    assert hello.parent_of(0) == 0


def test_a_strangers_name_is_not_trusted(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    with gevent.socket.socket(gevent.socket.AF_UNIX, gevent.socket.SOCK_SEQPACKET) as stranger:
        stranger.bind(socket_name(SETTINGS.device))
        stranger.listen(5)
        monkeypatch.setattr(hello, "peer_of", lambda _: Peer(77, 12345))
        with pytest.raises(WorkerError, match="user 12345 has taken the name"):
            case.find(case.master())
    assert case.services == []


@pytest.mark.parametrize("data", [b"{}", b"[]", b"x", json.dumps({"settings": {"warp": 9}, "masters": []}).encode()])
def test_a_worker_of_another_release_is_told_so(case: Case, data: bytes) -> None:
    sock = case.find(case.master())
    with gevent.socket.socket(gevent.socket.AF_UNIX, gevent.socket.SOCK_SEQPACKET) as other:
        other.connect(socket_name(SETTINGS.device))
        other.send(data)
        refusal, wait = hello.read_answer(other.recv(hello.SIZE_MAX))
    assert "restart gunicorn" in refusal
    assert wait == 0
    sock.close()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"refusal": "", "wait": "x"}'])
def test_an_answer_of_another_release_is_an_error(data: bytes) -> None:
    with pytest.raises(WorkerError, match="another version of etherws"):
        hello.read_answer(data)


def test_one_that_says_nothing_is_hung_up_on(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_service, "SPEAK_TIMEOUT", 0.05)
    sock = case.find(case.master())
    with gevent.socket.socket(gevent.socket.AF_UNIX, gevent.socket.SOCK_SEQPACKET) as silent:
        silent.connect(socket_name(SETTINGS.device))
        assert silent.recv(100) == b""
    sock.close()


def test_one_that_is_gone_before_its_answer_is_no_error(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Any] = []
    sock = case.find(case.master())
    for data in (b"", b"junk"):
        with gevent.socket.socket(gevent.socket.AF_UNIX, gevent.socket.SOCK_SEQPACKET) as other:
            other.connect(socket_name(SETTINGS.device))
            if data:
                other.send(data)
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *error: errors.append(error))
    # The service answers them in their order.
    case.find(case.masters[0].pid).close()
    assert errors == []
    sock.close()


def test_names_differ_by_device_user_and_network(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {socket_name("a%d"), socket_name("b%d")}
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    names.add(socket_name("a%d"))
    assert len(names) == 3
    assert all(len(name.encode()) < 108 and name[0] == "\0" for name in names)


def test_whether_a_master_still_listens(case: Case) -> None:
    case.masters.append(subprocess.Popen(["sleep", "1000"]))
    sock = case.find(case.masters[0].pid)
    with gevent.socket.socket() as listener:
        inode = os.fstat(listener.fileno()).st_ino
        holder = subprocess.Popen(["sleep", "1000"], stdin=listener.fileno())
    case.masters.append(holder)
    service = PortService(unused := GeventSocket(), 0)
    service._remember(case.masters[0].pid)
    assert not service._stays([inode])
    service._remember(holder.pid)
    assert service._stays([1, inode])
    holder.kill()
    gevent.sleep(0.1)
    assert not service._stays([inode])
    service._close()
    unused.close()
    sock.close()
