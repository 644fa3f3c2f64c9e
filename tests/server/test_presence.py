"""Whether a client is still there: by a half-closed, a closed and a reset connection, with bytes before it or not."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.socket import socket as GeventSocket

from etherws.errors import ClientGone
from etherws.server.presence import STEPS, UNKNOWN, Presence
from tests.lab.hosts import PATIENCE, Host
from tests.lab.turns import anothers_turn


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    with gevent.Timeout(PATIENCE):
        yield


@pytest.fixture
def ends(host: Host) -> Iterator[tuple[Any, socket.socket]]:
    """Our end and the client's, of a TCP connection over the loopback interface."""
    with contextlib.ExitStack() as stack:
        with host.namespace.inside():
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            its = stack.enter_context(socket.create_connection(listener.getsockname()))
        ours = listener.accept()[0]
        ours.setblocking(False)
        yield stack.enter_context(GeventSocket(fileno=ours.detach())), its


def half_close(its: socket.socket) -> None:
    its.shutdown(socket.SHUT_WR)


def close(its: socket.socket) -> None:
    its.close()


def reset(its: socket.socket) -> None:
    its.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    its.close()


ENDS = pytest.mark.parametrize("end", [half_close, close, reset])
DATA = pytest.mark.parametrize("data", [b"", b"GET /"])


@ENDS
@DATA
def test_who_waits_learns_at_once_that_its_client_hung_up(ends: Any, end: Any, data: bytes) -> None:
    sock, its = ends
    presence, queue = Presence(sock), BoundedSemaphore(1)

    def wait() -> None:
        with presence.required(), queue:
            raise AssertionError

    with queue:
        waiting = gevent.spawn(wait)
        gevent.sleep(0)
        its.sendall(data)
        assert not presence.gone()
        end(its)
        waiting.join()
    assert isinstance(waiting.exception, ClientGone)
    assert presence.gone()
    # Nobody waits for the queue any more.
    assert queue.acquire(blocking=False)


@ENDS
def test_nothing_is_begun_for_a_client_that_hung_up_before(ends: Any, end: Any) -> None:
    sock, its = ends
    end(its)
    with pytest.raises(ClientGone), Presence(sock).required():
        raise AssertionError


def test_a_closed_socket_has_no_client(ends: Any) -> None:
    sock, _ = ends
    sock.close()
    assert Presence(sock).gone()


def test_a_client_may_hang_up_after_the_block(ends: Any) -> None:
    sock, its = ends
    presence = Presence(sock)
    with presence.required(), presence.required():
        pass
    # The inner block has not ended the outer one's watch.
    with presence.required():
        with presence.required():
            pass
        its.close()
        with pytest.raises(ClientGone):
            Event().wait()
    assert presence.gone()
    gevent.sleep(0)


def test_the_loop_does_not_spin_for_a_client_that_speaks(ends: Any) -> None:
    sock, its = ends
    its.sendall(b"GET /")
    with Presence(sock).required():
        loops: list[int] = []
        prepare = gevent.get_hub().loop.prepare()
        prepare.start(lambda: loops.append(1))
        gevent.sleep(0.05)
        prepare.close()
    assert len(loops) < 10


def test_two_clients_that_hang_up_at_once(ends: Any) -> None:
    one, other = socket.socketpair()
    sock, its = ends
    waiting = [gevent.spawn(_wait, each) for each in (one, sock)]
    gevent.sleep(0)
    other.close()
    its.close()
    gevent.joinall(waiting)
    assert [isinstance(greenlet.exception, ClientGone) for greenlet in waiting] == [True, True]
    one.close()


def _wait(sock: Any) -> None:
    with Presence(sock).required():
        Event().wait()


def test_who_has_begun_comes_before_those_of_its_source_who_have_not(ends: Any) -> None:
    """A thousand that come at once are done one by one. But nobody goes ahead for ever."""
    begun, took = Presence(ends[0]), list[str]()

    def work(presence: Presence, name: str) -> None:
        with presence.turn("source"):
            took.append(name)

    for number in range(STEPS + 2):
        took.clear()
        with anothers_turn():
            greenlets = [gevent.spawn(work, Presence(ends[1]), "new"), gevent.spawn(work, begun, "begun")]
            gevent.sleep(0)
        gevent.joinall(greenlets, raise_error=True)
        ahead = 0 < number <= STEPS
        assert took == (["begun", "new"] if ahead else ["new", "begun"]), number


def test_who_cannot_be_told_from_others_never_goes_ahead() -> None:
    for _ in range(2):
        with UNKNOWN.turn("source"):
            assert UNKNOWN._turns == 0
