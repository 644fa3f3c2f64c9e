"""The queue between a real TAP and a stream whose room is the test's to give."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import gevent
import pytest

from etherws.errors import ConnectionClosed, DeviceLost
from etherws.tunnel.backlog import Backlog
from etherws.tunnel.connection import Connection
from etherws.tunnel.frames import Decoder
from etherws.tunnel.tap import Tap
from etherws.tunnel.wire import COMPLETE, Batch, Version1
from tests.lab.frames import frame
from tests.lab.hosts import PATIENCE, Host
from tests.lab.streams import FakeStream
from tests.lab.websocket import feed


@pytest.fixture
def tap(host: Host) -> Iterator[Tap]:
    with host.namespace.inside(), contextlib.closing(Tap("backlog0")) as tap:
        tap.begin(offload=False)
        yield tap


def full() -> tuple[FakeStream, Connection]:
    """A connection whose stream took a part of a message."""
    stream = FakeStream(room=10)
    connection = Connection(stream, server=True, wire=Version1())
    assert not connection.send_queued([COMPLETE + frame(200)])
    return stream, connection


def fill(host: Host, backlog: Backlog, count: int) -> None:
    """Give the TAP so many full frames; return when they are in the queue."""
    frames = host.frames("backlog0")
    for seed in range(count):
        frames.send(frame(1514, seed=seed))
    while backlog._queue.bytes < count * 1514:
        gevent.sleep(0.001)


def sent(stream: FakeStream) -> list[bytes]:
    """The frames of ours that were sent. The kernel has some of its own."""
    decoder = Decoder(server=False, max_message=70_000)
    return [data for _, data in feed(decoder, bytes(stream.sent)) if data[12:14] == b"\x88\xb5"]


def test_what_comes_while_the_socket_is_full_goes_when_it_has_room(host: Host, tap: Tap) -> None:
    stream, connection = full()
    backlog = Backlog(tap, connection)
    with gevent.Timeout(PATIENCE):
        draining = gevent.spawn(backlog.drain)
        fill(host, backlog, 50)
        assert not draining.ready()
        stream.room = 1 << 30
        draining.get()
    assert sent(stream) == [frame(200), *(frame(1514, seed=seed) for seed in range(50))]
    # A wait for each turn, not for each packet; the peer answers none of them with a pong.
    delays = connection.delays
    assert 0 < sum(delays.totals.queue_delay.counts) < 50
    assert 0 < delays.last_wait <= delays.longest_wait() < PATIENCE
    assert backlog.waiting(delays.waited_at).packets == 0
    # A part at a time, so that a ping could go between.
    assert len(stream.writes) > 50 * 1514 // connection.congestion.chunk
    assert not backlog.drops


def test_the_connections_end_ends_it(host: Host, tap: Tap) -> None:
    stream, connection = full()
    backlog = Backlog(tap, connection)
    with gevent.Timeout(PATIENCE):
        draining = gevent.spawn(backlog.drain)
        fill(host, backlog, 1)
        stream.fail(BrokenPipeError(32, "Broken pipe"))
        with pytest.raises(ConnectionClosed, match="Broken pipe"):
            draining.get()


def test_a_tap_that_is_deleted_meanwhile_is_told_by_the_next_read(host: Host, tap: Tap) -> None:
    stream, connection = full()
    backlog = Backlog(tap, connection)
    with gevent.Timeout(PATIENCE):
        draining = gevent.spawn(backlog.drain)
        fill(host, backlog, 1)
        with host.netlink() as route:
            route.link("del", index=tap.index)
        gevent.sleep(0.01)
        stream.room = 1 << 30
        draining.get()
        assert sent(stream) == [frame(200), frame(1514)]
        with pytest.raises(DeviceLost):
            tap.read_batch(Batch())
