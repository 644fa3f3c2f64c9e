"""The queue between a real TAP and a stream whose room is the test's to give."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import gevent
import pytest

from etherws.errors import ConnectionClosed, DeviceLost
from etherws.tunnel import backlog as module
from etherws.tunnel.backlog import Backlog
from etherws.tunnel.connection import Connection
from etherws.tunnel.frames import Decoder
from etherws.tunnel.offloads import Offload
from etherws.tunnel.session import uplink
from etherws.tunnel.tap import Tap
from etherws.tunnel.udp_super_frames import cut
from etherws.tunnel.wire import BATCH_BYTES, COMPLETE, Batch, Version1
from tests.lab.frames import frame
from tests.lab.hosts import PATIENCE, Host
from tests.lab.streams import FakeStream
from tests.lab.udp import super_frame
from tests.lab.websocket import feed


@pytest.fixture
def tap(host: Host) -> Iterator[Tap]:
    with host.namespace.inside(), contextlib.closing(Tap("backlog0")) as tap:
        tap.begin(offload=Offload.NONE)
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


def test_a_udp_super_frame_waits_as_datagrams_if_it_is_long_for_the_path(
    host: Host, tap: Tap, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, connection = full()
    backlog = Backlog(tap, connection)
    backlog._spare = Batch()
    packet = super_frame(bytes(50_000), 1000)

    def poll(batch: Batch) -> bool:
        batch.view[4 : 4 + len(packet)] = packet
        batch.spans = [(4, 4 + len(packet))]
        return True

    monkeypatch.setattr(tap, "poll_batch", poll)
    for chunk, wanted in ((50_000, 50), (100_000, 1)):
        connection.congestion.chunk = chunk
        backlog._fill()
        found = [*iter(lambda: backlog._queue.pop(0.0), None)]
        assert len(found) == wanted
        assert found == (cut(packet) if wanted > 1 else [packet])
    tap.on_readable(None)


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


def test_a_socket_that_stalls_costs_few_looks_at_the_tap(host: Host, tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, connection = full()
    backlog = Backlog(tap, connection)
    looks, poll = list[Batch](), tap.poll_batch

    def look(batch: Batch) -> bool:
        looks.append(batch)
        return poll(batch)

    monkeypatch.setattr(tap, "poll_batch", look)
    monkeypatch.setattr(module, "STALLED_AFTER", 0.0)
    monkeypatch.setattr(module, "STALLED_PAUSE", 3600.0)
    with gevent.Timeout(PATIENCE):
        draining = gevent.spawn(backlog.drain)
        fill(host, backlog, 1)
        frames = host.frames("backlog0")
        for seed in range(50):
            frames.send(frame(1514, seed=seed))
        # Nobody looks while the socket takes nothing.
        gevent.idle()
        assert len(looks) == 1
        # All is there when it does.
        monkeypatch.setattr(module, "STALLED_AFTER", 3600.0)
        backlog._listen()
        while len(looks) < 2:
            gevent.sleep(0.001)
        stream.room = 1 << 30
        draining.get()
    assert len(sent(stream)) > 2
    assert backlog._pause is None


@pytest.mark.parametrize(("chunk", "stays"), [(BATCH_BYTES, False), (BATCH_BYTES // 2, True)])
def test_a_socket_that_asks_for_whole_batches_gets_them_from_the_pump_again(
    tap: Tap, monkeypatch: pytest.MonkeyPatch, chunk: int, stays: bool
) -> None:
    connection = Connection(FakeStream(), server=True, wire=Version1())
    backlog, left = Backlog(tap, connection), list(range(20))

    def wait() -> int:
        # One more comes in each wait.
        if left:
            backlog._queue.push(COMPLETE + frame(1514, seed=left.pop()), 0.0)
        return chunk

    monkeypatch.setattr(connection, "wait_writable", wait)
    with gevent.Timeout(PATIENCE):
        backlog.drain()
    assert len(left) == (0 if stays else 19)
    assert not backlog.waiting(0.0).packets


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


def test_a_backlog_that_retires_sends_what_it_has_and_takes_no_more(host: Host, tap: Tap) -> None:
    stream, connection = full()
    backlog = Backlog(tap, connection)
    with gevent.Timeout(PATIENCE):
        draining = gevent.spawn(backlog.drain)
        fill(host, backlog, 5)
        # The pump does not wait for the TAP, but for room.
        assert not backlog.retire()
        heard = host.frames("backlog0")
        heard.send(frame(60))
        # Another session waits for the TAP now, and nobody disturbs it.
        batch = Batch()
        came = gevent.spawn(tap.read_batch, batch)
        gevent.idle()
        stream.room = 1 << 30
        draining.get()
        came.get()
        heard.send(frame(61))
        tap.read_batch(batch)
    assert sent(stream) == [frame(200), *(frame(1514, seed=seed) for seed in range(5))]


def test_a_pump_that_retires_while_the_socket_is_full_takes_nothing(host: Host, tap: Tap) -> None:
    stream, connection = full()
    backlog = Backlog(tap, connection)
    assert not backlog.retire()
    host.frames("backlog0").send(frame(60))
    with gevent.Timeout(PATIENCE):
        draining = gevent.spawn(backlog.drain)
        gevent.idle()
        stream.room = 1 << 30
        draining.get()
        uplink(tap, connection, backlog)
    assert sent(stream) == [frame(200)]
    assert tap.poll_batch(Batch())


def test_a_pump_that_waits_for_the_tap_when_it_retires_waits_in_vain(tap: Tap) -> None:
    connection = Connection(FakeStream(), server=True, wire=Version1())
    backlog = Backlog(tap, connection)
    waiting = gevent.spawn(uplink, tap, connection, backlog)
    while tap.poll_batch(Batch()):
        pass
    gevent.idle()
    assert backlog.retire()
    waiting.kill()
    assert not backlog.retire()


def noted(how: list[str], name: str, send: Callable[[Batch], bool], batch: Batch) -> bool:
    how.append(f"{name} {len(batch.spans)}")
    return send(batch)


@pytest.fixture
def pump(host: Host, tap: Tap) -> Iterator[tuple[FakeStream, Backlog, list[str]]]:
    """A pump that waits for the TAP, with a note of how each batch was sent."""
    stream, how = FakeStream(), list[str]()
    connection = Connection(stream, server=True, wire=Version1())
    with pytest.MonkeyPatch.context() as patch:
        for name in ("try_send", "send"):
            patch.setattr(connection, name, partial(noted, how, name, getattr(connection, name)))
        backlog = Backlog(tap, connection)
        # What the kernel sends by itself has come before.
        while tap.poll_batch(Batch()):
            pass
        pumping = gevent.spawn(uplink, tap, connection, backlog)
        gevent.idle()
        how.clear()
        with gevent.Timeout(PATIENCE):
            yield stream, backlog, how
        pumping.kill()


def until_sent(stream: FakeStream, count: int) -> None:
    while len(sent(stream)) < count:
        gevent.sleep(0.001)


def test_a_packet_alone_is_sent_by_the_event_loop(host: Host, pump: tuple[FakeStream, Backlog, list[str]]) -> None:
    stream, _, how = pump
    frames = host.frames("backlog0")
    for count in (1, 2, 3):
        frames.send(frame(60, seed=count))
        until_sent(stream, count)
    assert sent(stream) == [frame(60, seed=1), frame(60, seed=2), frame(60, seed=3)]
    # But for what the kernel sent by itself, which may have come at the same moment.
    assert how.count("try_send 1") >= 3
    assert "send 0" not in how


def test_of_several_packets_the_first_does_not_wait(host: Host, pump: tuple[FakeStream, Backlog, list[str]]) -> None:
    stream, _, how = pump
    frames = host.frames("backlog0")
    for seed in range(10):
        frames.send(frame(60, seed=seed))
    until_sent(stream, 10)
    assert sent(stream) == [frame(60, seed=seed) for seed in range(10)]
    assert how[:3] == ["try_send 1", "send 9", "try_send 9"]


def test_packets_of_bulk_go_together(host: Host, pump: tuple[FakeStream, Backlog, list[str]]) -> None:
    stream, _, how = pump
    host.command("ip link set backlog0 mtu 9000")
    frames = host.frames("backlog0")
    for seed in range(3):
        frames.send(frame(3000, seed=seed))
    until_sent(stream, 3)
    assert sent(stream) == [frame(3000, seed=seed) for seed in range(3)]
    assert how[:2] == ["send 3", "try_send 3"]


def test_a_packet_alone_that_finds_the_socket_full_is_sent_once(
    host: Host, pump: tuple[FakeStream, Backlog, list[str]]
) -> None:
    stream, backlog, how = pump
    stream.room = 10
    host.frames("backlog0").send(frame(60, seed=1))
    while not backlog._draining:
        gevent.sleep(0.001)
    assert how[:3] == ["try_send 1", "send 0", "try_send 0"]
    fill(host, backlog, 3)
    stream.room = 1 << 30
    while backlog._draining:
        gevent.sleep(0.001)
    assert sent(stream) == [frame(60, seed=1), *(frame(1514, seed=seed) for seed in range(3))]
