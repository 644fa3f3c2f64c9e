"""One session in this process: a real TAP, and a socket pair for the network."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest
from gevent import socket
from gevent.event import Event

from etherws.counters import Totals, Traffic
from etherws.errors import ConnectionClosed, DeviceError
from etherws.settings import DeviceSettings
from etherws.tunnel.connection import Connection
from etherws.tunnel.fair_turns import EventTurn
from etherws.tunnel.frames import Decoder
from etherws.tunnel.scheduling import pause
from etherws.tunnel.session import Session, downlink, totals_now
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.tap import Tap
from etherws.tunnel.tcp_facts import TcpFacts
from etherws.tunnel.wire import COMPLETE, PADDING_MAX, Batch, Buffer, Version1, Version2
from tests.lab.hosts import PATIENCE, Host
from tests.lab.streams import FakeStream
from tests.lab.websocket import feed, frame


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
            session.end(connection.lost(ConnectionClosed("over")))
        else:
            session.stop()
        reason = running.get()
        session.close(reason)
        far.close()
        left = [weakref.ref(each) for each in (session, connection, session._backlog)]
        del session, connection, running, reason
        gevent.idle()
        assert [each() for each in left] == [None] * 3


LONG = TcpFacts(segment=1448, round_trip=0.006, shortest=0.006, window=1000)


@pytest.mark.parametrize("agreed", [True, False])
def test_padding_is_sent_where_it_was_agreed_on(host: Host, no_collection: None, agreed: bool) -> None:
    near, far = socket.socketpair()
    with host.namespace.inside(), contextlib.closing(Tap("session0")) as tap, gevent.Timeout(PATIENCE):
        connection = Connection(PlainStream(near), server=True, wire=Version2(padding=agreed))
        connection.tcp_facts = lambda: LONG  # type: ignore[method-assign]
        session = Session(tap, connection, DeviceSettings())
        running = gevent.spawn(session.run)
        came = b""
        if agreed:
            while len(came) < PADDING_MAX:
                came += far.recv(1 << 20)
        else:
            gevent.idle()
        session.stop()
        reason = running.get()
        far.sendall(frame(0x88, b"\x03\xe8", masked=True))
        session.close(reason)
        while data := far.recv(1 << 20):
            came += data
        far.close()
        messages = [payload for _, payload in feed(Decoder(server=False, max_message=1 << 20), came)]
        # The last one is the Close.
        padding = [message for message in messages[:-1] if message[:4] == bytes(4)]
        assert sum(map(len, padding)) == (PADDING_MAX if agreed else 0)
        assert session.status()["sent"]["frames"] == len(messages) - 1 - len(padding)
        left = weakref.ref(session)
        del session, connection, running, reason
        gevent.idle()
        assert left() is None


def test_a_session_that_leaves_its_queue_to_another_sends_no_padding(host: Host) -> None:
    near, far = socket.socketpair()
    with host.namespace.inside(), contextlib.closing(Tap("session0")) as tap, gevent.Timeout(PATIENCE):
        for before in (True, False):
            connection = Connection(PlainStream(near), server=True, wire=Version2(padding=True))
            session = Session(tap, connection, DeviceSettings())
            if before:
                session.retire()
            running = gevent.spawn(session.run)
            gevent.sleep(0)
            assert (session._padding is None) == before
            session.retire()
            assert session._padding is None
            session.stop()
            running.get()
    near.close()
    far.close()


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
        downlink(cast(Any, SimpleNamespace(recv=recv, end_turn=lambda: None)), sink)
    assert passed == [[b"packet"]]


def test_a_session_fails_for_the_reason_that_it_is_told(host: Host) -> None:
    near, far = socket.socketpair()
    with host.namespace.inside(), contextlib.closing(Tap("session0")) as tap, gevent.Timeout(PATIENCE), far:
        session = Session(tap, Connection(PlainStream(near), server=True, wire=Version1()), DeviceSettings())
        session.end(DeviceError("the rules are gone"))
        reason = session.run()
        assert str(reason) == "the rules are gone"
        session.close(reason)
        # A Close with 1011.
        assert far.recv(100)[:4] == b"\x88\x02\x03\xf3"


class SlowSink:
    """Takes packets when it may, as a port does whose rules the kernel is about to get."""

    def __init__(self) -> None:
        self.may, self.packets = Event(), list[bytes]()

    def write_batch(self, packets: Sequence[Buffer]) -> None:
        """Wait, and take them."""
        self.may.wait()
        self.packets += map(bytes, packets)


class BusyTap:
    """Has a packet for the peer, always."""

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()
        self.turn = EventTurn()

    def begin(self, *, offload: bool, joining: bool = False) -> None:
        """Nothing to prepare."""

    def start_carrier_timeout(self, timeout: float) -> None:
        """It has no carrier to lose."""

    def on_readable(self, call: object) -> None:
        """Nothing more comes then."""

    def quiet(self, seconds: float) -> bool:
        """Never."""
        return False

    def read_batch(self, batch: Batch, first: object = None) -> None:
        """Give one packet."""
        gevent.sleep(0)
        batch.view[4:74] = bytes(70)
        batch.spans = [(4, 74)]


FRAMES = frame(0x82, bytes(60), masked=True) * 3


@pytest.mark.parametrize(
    ("pieces", "failure", "words"),
    [
        ([FRAMES + frame(0x88, b"", masked=True)], None, "closed by the peer"),
        ([FRAMES + frame(0x88, b"\x03\xed", masked=True)], None, "close code 1005"),
        ([FRAMES + b"\xff\xff"], None, "reserved bit"),
        ([FRAMES, b""], None, "the peer ended TCP"),
        ([FRAMES, ConnectionResetError(104, "Connection reset by peer")], None, "Connection reset"),
        ([FRAMES, b""], BrokenPipeError(32, "Broken pipe"), "connection lost"),
        ([FRAMES[:20], FRAMES[20:], b""], BrokenPipeError(32, "Broken pipe"), "connection lost"),
    ],
)
def test_packets_that_came_before_the_end_are_delivered_before_it(
    pieces: list[Any], failure: OSError | None, words: str
) -> None:
    stream = FakeStream(*pieces)
    tap: Any = BusyTap()
    sink = SlowSink()
    session = Session(tap, Connection(stream, server=True, wire=Version1()), DeviceSettings(ping_interval=0), sink)
    running = gevent.spawn(session.run)
    for _ in range(5):
        gevent.sleep(0)
    if failure:
        # The way up meets the end first.
        stream.fail(failure)
    with gevent.Timeout(PATIENCE):
        for _ in range(20):
            pause()
        assert not running.ready()
        sink.may.set()
        reason = running.get()
    assert sink.packets == [COMPLETE + bytes(60)] * 3
    assert words in str(reason)
    stream.feed(b"")
    session.close(reason)


def test_a_session_counts_in_the_totals_while_it_runs_and_at_its_end() -> None:
    stream, totals, sink = FakeStream(FRAMES), Totals(), SlowSink()
    tap: Any = BusyTap()
    connection = Connection(stream, server=True, wire=Version1())
    session = Session(tap, connection, DeviceSettings(ping_interval=0), sink, totals)
    sink.may.set()
    running = gevent.spawn(session.run)
    with gevent.Timeout(PATIENCE):
        while not totals_now(totals).received.frames:
            pause()
        assert (totals.joins, totals.leaves) == (1, 0)
        before = totals.sent.frames
        assert session.status()["received"] == {"bytes": len(FRAMES), "frames": 3, "super_frames": 0}
        assert session.history()["sent"] == []
        stream.feed(frame(0x81, b"text", masked=True) + frame(0x88, b"", masked=True))
        reason = running.get()
    assert totals.sent.frames > before > 0
    assert totals.received == Traffic(len(FRAMES) + 10 + 6, 3, 0)
    assert totals.drops == {"text": 1}
    assert (totals.joins, totals.leaves) == (1, 1)
    session.close(reason)
    # Nothing of it is counted again.
    assert totals_now(totals).received.frames == 3


def test_a_session_ends_when_only_sending_has_failed() -> None:
    stream = FakeStream()
    tap: Any = BusyTap()
    session = Session(
        tap, Connection(stream, server=True, wire=Version1()), DeviceSettings(ping_interval=0), SlowSink()
    )
    running = gevent.spawn(session.run)
    gevent.sleep(0)
    stream.encode_error = OSError("TLS has failed")
    with gevent.Timeout(PATIENCE):
        assert "TLS has failed" in str(running.get())
    session.close(running.get())
