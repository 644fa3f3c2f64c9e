"""One session in this process: a real TAP, and a socket pair for the network."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator

import gevent
import pytest
from gevent import socket

from etherws.errors import ConnectionClosed
from etherws.settings import DeviceSettings
from etherws.tunnel.connection import Connection
from etherws.tunnel.session import Session
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.tap import Tap
from etherws.tunnel.wire import Version1
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
