"""Accepting: by turns, while there is room, and when accept() fails."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket as gevent_socket
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer

from etherws.server import accepting as accepting_module
from etherws.server import waiting_list
from etherws.server.accepting import ACCEPT, LOOKS, LOOKS_IN_VAIN, ROOM, Accepting
from etherws.server.front_door import Admitted, FrontDoor
from etherws.server.scarcity import MEMORY_TO_ACCEPT
from etherws.settings import ServerSettings
from etherws.tunnel.scheduling import low_priority
from tests.lab.hosts import PATIENCE, Host
from tests.lab.turns import anothers_turn


class Echo(Accepting, StreamServer):
    """Waits for a line from each client, and sends it back when the test says so."""

    def __init__(self, listener: Any, **options: Any) -> None:
        super().__init__(listener, **options)
        self.front_door = FrontDoor(ServerSettings(), None)
        self.answers = Event()
        self.answers.set()
        self.errors: list[OSError] = []
        self.tries = 0

    def handle(self, sock: Any, address: Any) -> None:
        self.front_door.admit(sock, address, self.speak)

    def speak(self, admitted: Admitted) -> None:
        with admitted.visitor.listening():
            data = admitted.stream.recv(100)
        self.answers.wait()
        admitted.stream.sendall(data)

    def do_read(self) -> Any:
        self.tries += 1
        if self.errors:
            raise self.errors.pop()
        return super().do_read()


@pytest.fixture(autouse=True)
def inside(host: Host) -> Iterator[None]:
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        yield


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo(("127.0.0.1", 0))
    server.start()
    yield server
    server.stop()


def at(echo: Echo) -> tuple[str, int]:
    address: Any = echo.address
    return (address[0], address[1])


def connect(echo: Echo, count: int) -> list[Any]:
    return [gevent_socket.create_connection(at(echo)) for _ in range(count)]


def echoed(sock: Any) -> bool:
    sock.sendall(b"hello")
    return bool(sock.recv(100) == b"hello")


def close(socks: list[Any]) -> None:
    for sock in socks:
        sock.close()


def test_connections_are_accepted_in_a_turn(echo: Echo) -> None:
    with anothers_turn():
        socks = connect(echo, 3)
        socks[0].sendall(b"hello")
        gevent.sleep(0.01)
        assert echo.tries == 0
        assert list(low_priority._waiting) == [ACCEPT]
    assert all(map(echoed, socks[1:]))
    assert socks[0].recv(100) == b"hello"
    close(socks)


def test_who_speaks_stays_and_others_wait_in_the_kernel(echo: Echo) -> None:
    echo.front_door.waiting.limit = 3
    echo.answers.clear()
    speaking = connect(echo, 3)
    for sock in speaking:
        sock.sendall(b"hello")
    others = connect(echo, 2)
    for sock in others:
        sock.sendall(b"hello")
    while echo.front_door.waiting.count < 3:
        gevent.sleep(0.001)
    gevent.sleep(0.01)
    assert echo.front_door.waiting.count == 3
    echo.answers.set()
    assert [sock.recv(100) for sock in (*speaking, *others)] == [b"hello"] * 5
    close(speaking + others)


def test_silent_ones_make_room_longest_first(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_list, "GRACE", 0.0)
    monkeypatch.setattr(accepting_module, "ROOM", 1)
    echo.front_door.waiting.limit = 3
    silent = []
    for count in range(1, 4):
        silent += connect(echo, 1)
        while echo.front_door.waiting.count < count:
            gevent.sleep(0.001)
    more = connect(echo, 1)
    assert silent[0].recv(1) == b""
    assert all(map(echoed, [*more, *silent[1:]]))
    close(silent + more)


def test_a_pool_that_is_full_makes_room_of_silent_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_list, "GRACE", 0.0)
    server = Echo(("127.0.0.1", 0), spawn=Pool(2))
    server.start()
    silent = connect(server, 2)
    while server.pool.free_count():
        gevent.sleep(0.001)
    # At once, and not when a time is over: a flood of silent ones would hold out everybody else.
    monkeypatch.setattr(accepting_module, "GRACE", 1000.0)
    silent += connect(server, 5)
    more = connect(server, 1)
    assert echoed(more[0])
    assert sum(not sock.recv(1) for sock in silent[:1]) == 1
    close(silent + more)
    server.stop()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_lack_is_one_warning_and_accepting_goes_on(
    echo: Echo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    monkeypatch.setattr(accepting_module, "RETRY", 0.001)
    echo.errors = [OSError(number, os.strerror(number)) for _ in range(5)]
    (sock,) = connect(echo, 1)
    assert echoed(sock)
    assert echo.errors == []
    assert caplog.text.count("cannot accept more connections") == 1
    assert os.strerror(number) in caplog.text
    assert ("MemoryMax" if number == errno.ENOMEM else "LimitNOFILE") in caplog.text
    close([sock])


def test_without_memory_connections_wait_in_the_kernel(
    echo: Echo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting_module, "RETRY", 0.001)
    asked: list[int] = []

    def has_memory(size: int) -> bool:
        asked.append(size)
        return len(asked) > 3

    monkeypatch.setattr(accepting_module, "has_memory", has_memory)
    (sock,) = connect(echo, 1)
    assert echoed(sock)
    assert set(asked[:4]) == {MEMORY_TO_ACCEPT}
    assert caplog.text.count("cannot accept more connections: Cannot allocate memory") == 1
    close([sock])


def test_an_error_of_one_connection_is_no_error_of_the_server(echo: Echo, caplog: pytest.LogCaptureFixture) -> None:
    echo.errors = [OSError(errno.ECONNABORTED, "aborted"), OSError(errno.EPROTO, "protocol error")]
    (sock,) = connect(echo, 1)
    assert echoed(sock)
    assert caplog.text == ""
    close([sock])


def test_nothing_is_accepted_after_the_end(echo: Echo) -> None:
    (sock,) = connect(echo, 1)
    assert echoed(sock)
    acceptor = echo._acceptor
    echo.stop_accepting()
    echo.stop_accepting()
    assert acceptor
    acceptor.join()
    tries = echo.tries
    more = connect(echo, 1)
    gevent.sleep(0.01)
    assert echo.tries == tries
    echo.start_accepting()
    assert echoed(more[0])
    close([sock, *more])


def test_a_turn_ends_after_its_time(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(1000))
    monkeypatch.setattr(accepting_module, "monotonic", lambda: float(next(times)))
    with socket.create_connection(at(echo)), socket.create_connection(at(echo)):
        assert echo._accept_some(16) == 0.0
        # The second one is left to the next turn.
        assert echo.tries == 1


class Others:
    """Other workers, as the test says: what look() gives next, and the last of these for ever."""

    def __init__(self, *looks: tuple[int, int]) -> None:
        self.looks = list(looks)
        self.count = 0
        self.said: list[object] = []

    def look(self) -> tuple[int, int]:
        self.count += 1
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def publish(self, more: int = 0) -> None:
        self.said.append(more)

    def become_full(self, full: bool) -> None:
        if full:
            self.said.append("full")


def among(echo: Echo, *looks: tuple[int, int]) -> Others:
    echo.others = others = Others(*looks)
    return others


def test_who_is_not_ahead_takes_connections_at_once(echo: Echo) -> None:
    others = among(echo, (2, 5))
    socks = connect(echo, 4)
    assert all(map(echoed, socks))
    # Never more than it should, and the others are told of each batch.
    assert all(isinstance(count, int) and count <= 2 for count in others.said)
    assert sum(count for count in others.said if isinstance(count, int)) == 4
    close(socks)


def test_who_is_ahead_leaves_a_connection_to_one_that_takes_it(echo: Echo) -> None:
    others = among(echo, (0, 5))
    (sock,) = connect(echo, 1)
    while not others.count:
        gevent.sleep(0)
    # This is the other worker: it has the same socket.
    taken, _ = StreamServer.do_read(echo)
    gevent.sleep(0.01)
    assert echo.tries == 0
    assert others.said == []
    close([sock, taken])


def test_one_that_is_left_is_taken_after_some_looks(echo: Echo) -> None:
    others = among(echo, (0, 5))
    (sock,) = connect(echo, 1)
    assert echoed(sock)
    assert others.count == LOOKS_IN_VAIN + 1
    assert others.said == [1]
    close([sock])


def test_others_that_take_some_get_more_time_but_not_for_ever(echo: Echo) -> None:
    others = among(echo, *((0, number) for number in range(2 * LOOKS)))
    (sock,) = connect(echo, 1)
    assert echoed(sock)
    assert others.count == LOOKS + 1
    close([sock])


def test_a_queue_that_others_do_not_take_is_taken_in_growing_parts(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    # No turn ends by its time, which on a busy machine comes before all of a part are taken.
    monkeypatch.setattr(accepting_module, "monotonic", lambda: 0.0)
    # Nobody answers, so that all stay: 1, 2, 4, 8 and so on; not LOOKS_IN_VAIN looks for each of them.
    others = among(echo, (0, 5))
    echo.answers.clear()
    # All are in the queue before the event loop looks: it does not run meanwhile.
    socks: list[Any] = [socket.create_connection(at(echo), PATIENCE) for _ in range(40)]
    while echo.front_door.waiting.count < 40:
        gevent.sleep(0.001)
    assert others.said[:5] == [1, 2, 4, 8, ROOM]
    # When the others have caught up, that begins anew.
    others.looks = [(1, 9), (0, 9)]
    more = connect(echo, 2)
    while echo.front_door.waiting.count < 42:
        gevent.sleep(0.001)
    assert others.said[-2:] == [1, 1]
    echo.answers.set()
    close(socks + more)


def test_the_others_know_when_there_is_no_room_and_at_the_end(echo: Echo) -> None:
    others = among(echo, (ROOM, 0))
    echo.front_door.waiting.limit = 1
    echo.answers.clear()
    socks = connect(echo, 2)
    socks[0].sendall(b"hello")
    while "full" not in others.said:
        gevent.sleep(0.001)
    echo.stop_accepting()
    assert others.said[-1] == "full"
    echo.answers.set()
    close(socks)


def test_the_others_know_when_descriptors_have_run_out(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting_module, "RETRY", 0.001)
    others = among(echo, (ROOM, 0))
    echo.errors = [OSError(errno.EMFILE, "too many")]
    (sock,) = connect(echo, 1)
    assert echoed(sock)
    assert others.said == ["full", 1]
    close([sock])
