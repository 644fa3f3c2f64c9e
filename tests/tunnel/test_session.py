"""One session in this process: a real TAP, and a socket pair for the network."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest
from gevent import socket

from etherws.errors import ConnectionClosed, DeviceError
from etherws.settings import DeviceSettings
from etherws.tunnel.connection import Connection
from etherws.tunnel.session import Session, downlink
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.tap import Tap
from etherws.tunnel.wire import Buffer, Version1
from tests.lab.hosts import PATIENCE, Host


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Nothing goes but what nobody holds."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


ENDS = ["the peer ends TCP", "the peer resets TCP", "the peer reads nothing", "the peer is lost", "told to stop"]


@pytest.mark.parametrize("end", ENDS)
def test_nothing_of_a_session_outlives_it(host: Host, no_collection: None, end: str) -> None:
    near, far = socket.socketpair()
    with host.namespace.inside(), contextlib.closing(Tap("session0")) as tap, gevent.Timeout(PATIENCE):
        connection = Connection(PlainStream(near), server=True, wire=Version1())
        session = Session(tap, connection, DeviceSettings())
        running = gevent.spawn(session.run)
        gevent.idle()
        if end == "the peer ends TCP":
            far.close()
        elif end == "the peer resets TCP":
            # By what it has not read.
            assert connection.send_queued([bytes(100)])
            far.close()
        elif end == "the peer reads nothing":
            # Both ways fail then.
            while connection.send_queued([bytes(1000)]):
                pass
            far.close()
            connection.wait_writable()
            with pytest.raises(ConnectionClosed):
                connection.send_queued([bytes(100)])
        elif end == "the peer is lost":
            session._finish(connection.lost(ConnectionClosed("over")))
        else:
            session.stop()
        reason = running.get()
        session.close(reason)
        far.close()
        left = [weakref.ref(each) for each in (session, connection, session._backlog)]
        del session, connection, running, reason
        gevent.idle()
        assert [each() for each in left] == [None] * 3


def test_packets_that_come_after_a_sink_began_to_hold_do_not_pass() -> None:
    """The downlink waits for packets in between."""
    passed: list[object] = []

    class Sink:
        def write_batch(self, packets: Sequence[Buffer]) -> None:
            raise DeviceError("the rules are gone")

    sink = Sink()
    sink.write_batch = passed.append  # type: ignore[method-assign, assignment]

    def recv() -> list[bytes]:
        if passed:
            del sink.write_batch
        return [b"packet"]

    with pytest.raises(DeviceError, match="the rules are gone"):
        downlink(cast(Any, SimpleNamespace(recv=recv)), sink)
    assert passed == [[b"packet"]]


def test_a_session_fails_for_the_reason_that_it_is_told(host: Host) -> None:
    near, far = socket.socketpair()
    with host.namespace.inside(), contextlib.closing(Tap("session0")) as tap, gevent.Timeout(PATIENCE), far:
        session = Session(tap, Connection(PlainStream(near), server=True, wire=Version1()), DeviceSettings())
        session.fail(DeviceError("the rules are gone"))
        reason = session.run()
        assert str(reason) == "the rules are gone"
        session.close(reason)
        # A Close with 1011.
        assert far.recv(100)[:4] == b"\x88\x02\x03\xf3"
