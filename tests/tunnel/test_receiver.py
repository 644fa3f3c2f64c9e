"""What a receiver makes of bytes in any pieces, of the end and of errors; how it waits. No kernel."""

from __future__ import annotations

import contextlib
from time import monotonic
from typing import NoReturn

import gevent
import pytest

from etherws.errors import ConnectionClosed, ProtocolError
from etherws.tunnel import receiver as receiver_module
from etherws.tunnel.frames import PARSE_FRAMES, READ_BYTES, Decoder, Opcode
from etherws.tunnel.long_messages import LongMessages
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.receiver import Receiver
from etherws.tunnel.turns import Turn, account
from tests.lab.hosts import PATIENCE
from tests.lab.streams import FakeStream
from tests.lab.websocket import frame

MESSAGE = frame(0x82, b"message", masked=True)
EVENT = (Opcode.BINARY, b"message")


def receiver(stream: FakeStream, early: bytes = b"") -> Receiver:
    return Receiver(stream, Decoder(server=True, max_message=100_000), Turn(account("")), early)


def received(receiver: Receiver) -> list[tuple[int, bytes]]:
    with gevent.Timeout(PATIENCE):
        return [(opcode, bytes(payload)) for opcode, payload in receiver.receive()]


def test_each_piece_gives_what_it_completes() -> None:
    half = receiver(FakeStream(MESSAGE + MESSAGE[:5], MESSAGE[5:] + frame(0x89, b"?", masked=True), MESSAGE[:1]))
    assert received(half) == [EVENT]
    assert received(half) == [EVENT, (Opcode.PING, b"?")]
    assert received(half) == []


def test_early_bytes_come_first_and_nothing_is_waited_for() -> None:
    stream = FakeStream(MESSAGE[3:])
    early = receiver(stream, MESSAGE + MESSAGE[:3])
    assert received(early) == [EVENT]
    assert stream.reads == 0
    assert received(early) == [EVENT]


def test_more_early_bytes_than_fit_are_taken_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etherws.tunnel.frames.READ_BYTES", 10)
    early = receiver(FakeStream(), MESSAGE)
    assert received(early) == []
    assert received(early) == [EVENT]


def test_it_waits_until_bytes_come() -> None:
    stream = FakeStream()
    waiting = receiver(stream)
    before = waiting.heard
    greenlet = gevent.spawn(received, waiting)
    gevent.sleep(0)
    assert stream.reads == 0
    stream.feed(MESSAGE)
    assert greenlet.get(timeout=PATIENCE) == [EVENT]
    assert before < waiting.heard <= monotonic()


class CountedTurn(Turn):
    """Counts how often it is ended to wait, and for what."""

    def __init__(self) -> None:
        super().__init__(account(""))
        self.waits, self.slept = list[object](), list[float]()

    def wait(self, event: object = None) -> None:
        """Do not wait."""
        self.waits.append(event)

    def sleep(self, seconds: float) -> None:
        """Do not sleep."""
        self.slept.append(seconds)


def test_it_waits_when_the_kernel_has_no_more() -> None:
    # A message that fills four reads, and a little more.
    stream = FakeStream(frame(0x82, bytes(4 * READ_BYTES), masked=True), MESSAGE)
    turn = CountedTurn()
    reading = Receiver(stream, Decoder(server=True, max_message=4 * READ_BYTES), turn)
    # In the last case but one TLS still has bytes: to wait for the kernel could be for ever.
    for drained, expected in [(True, 1), (True, 1), (True, 1), (True, 1), (True, 1), (False, 1)]:
        stream.drained = drained
        events = reading.receive()
        assert len(turn.waits) == expected
    assert events == [EVENT]
    assert turn.received == 4 * READ_BYTES + 14 + len(MESSAGE)
    stream.drained = True
    stream.feed(MESSAGE)
    assert reading.receive() == [EVENT]
    assert len(turn.waits) == 2


def test_43_000_pings_are_parsed_in_pieces_and_received_once() -> None:
    data = frame(0x89, b"", masked=True) * (READ_BYTES // 6)
    stream = FakeStream(data)
    flooded = receiver(stream)
    sizes = [len(received(flooded)) for _ in range(-(-len(data) // 6 // PARSE_FRAMES))]
    assert max(sizes) == PARSE_FRAMES
    assert sum(sizes) == len(data) // 6
    assert stream.reads == 1
    assert not flooded.undecoded


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (b"", "the peer ended TCP without a Close"),
        (ConnectionResetError(104, "Connection reset by peer"), "connection lost: Connection reset by peer"),
        (OSError("bad record MAC"), "connection lost: bad record MAC"),
    ],
    ids=["end of TCP", "reset", "error of TLS"],
)
def test_the_end_is_told_after_what_came_before(end: bytes | OSError, words: str) -> None:
    ending = receiver(FakeStream(MESSAGE, end))
    assert received(ending) == [EVENT]
    with pytest.raises(ConnectionClosed, match=words):
        ending.receive()


def test_a_mistake_is_told_before_anything_is_waited_for() -> None:
    stream = FakeStream(MESSAGE + b"\xff\xff")
    wrong = receiver(stream)
    assert received(wrong) == [EVENT]
    for _ in range(2):
        with pytest.raises(ProtocolError):
            wrong.receive()
    assert stream.reads == 1


def test_a_limited_rate_counts_bytes_once_and_waits_before_the_next_read(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = CountedTurn()
    empty = frame(0x82, b"", masked=True)
    limited = Receiver(FakeStream(*[empty * 1000] * 5), Decoder(server=True, max_message=100), turn)
    limited.limit_rate(Pacer(80_000))
    monkeypatch.setattr(receiver_module, "monotonic", lambda: 100.0 + sum(turn.slept))
    found = 0
    while found < 3000:
        # In slices.
        found += len(limited.receive())
    # 6,000 bytes at 10,000 per second, but for the credit of 10 ms.
    assert turn.slept == [pytest.approx(0.59), pytest.approx(0.6)]
    # Until the limit is lifted.
    limited.limit_rate(None)
    while found < 5000:
        found += len(limited.receive())
    assert len(turn.slept) == 2


def test_connections_that_share_a_rate_pay_for_each_other_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = 100.0, list[float]()

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds
        if len(slept) == 1:
            # Another one lets bytes pass meanwhile.
            pacer.wait(10_000, now)

    monkeypatch.setattr(receiver_module, "monotonic", lambda: now)
    pacer = Pacer(80_000)
    first = receiver(FakeStream(frame(0x82, bytes(1000), masked=True)))
    first.limit_rate(pacer)
    first.receive()
    # It ends. What it received is owed by the next one, before a byte of that passes.
    debt = pacer.wait(0, now)
    assert debt == pytest.approx(0.09, abs=0.01)
    turn = CountedTurn()
    monkeypatch.setattr(turn, "sleep", sleep)
    second = Receiver(FakeStream(MESSAGE), Decoder(server=True, max_message=100), turn)
    second.limit_rate(pacer)
    second.receive()
    assert slept == [pytest.approx(debt), pytest.approx(1.0)]


def test_the_receiver_pauses_while_it_discards(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = CountedTurn()
    monkeypatch.setattr(turn, "over", lambda: True)
    stream = FakeStream(*[MESSAGE] * 5, b"")
    Receiver(stream, Decoder(server=True, max_message=100), turn).discard()
    assert len(turn.waits) == 5


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> LongMessages:
    room = LongMessages(1_500_000)
    monkeypatch.setattr(receiver_module, "long_messages", room)
    return room


def test_of_too_many_long_messages_one_is_refused(room: LongMessages) -> None:
    long = frame(0x82, bytes(1_000_000), masked=True)

    def receive(stream: FakeStream) -> list[tuple[int, bytes]]:
        half = Receiver(stream, Decoder(server=True, max_message=1 << 20), Turn(account("")), source=str(id(stream)))
        while True:
            if found := received(half):
                half.release()
                return found

    streams = [FakeStream(long[:-1]) for _ in range(4)]
    greenlets = [gevent.spawn(receive, stream) for stream in streams]
    with pytest.raises(ProtocolError, match="too many long messages"):
        greenlets[0].get(timeout=PATIENCE)
    # Whoever is not refused gets through, and gives the room back.
    for stream in streams[1:]:
        stream.feed(long[-1:])
    assert [len(greenlet.get(timeout=PATIENCE)[0][1]) for greenlet in greenlets[1:]] == [1_000_000] * 3
    late = receive(FakeStream(long))
    assert len(late[0][1]) == 1_000_000


def drain(receiver: Receiver) -> NoReturn:
    """Receive without end, and nothing whole."""
    while True:
        assert receiver.receive() == []


def test_at_rest_half_a_message_is_kept_and_nothing_else() -> None:
    long = frame(0x82, bytes(range(256)) * 1024, masked=True)
    for at in (1, 3, 7, 1000, len(long) - 1):
        stream, calls = FakeStream(MESSAGE + long[:at]), list[int]()
        decoder = Decoder(server=True, max_message=1 << 20)
        half = Receiver(stream, decoder, Turn(account("")))
        assert not half.quiet(0.0)
        with gevent.Timeout(PATIENCE):
            assert received(half) == [EVENT]
        waiting = gevent.spawn(drain, half)
        with gevent.Timeout(PATIENCE):
            while not half.quiet(0.0):
                gevent.sleep(0)
        assert not half.quiet(1000.0)
        waiting.kill()
        half.on_readable(lambda calls=calls: calls.append(1))  # type: ignore[misc]
        assert decoder.rest() == at
        assert decoder._memory is None
        assert not calls
        stream.feed(long[at:])
        gevent.sleep(0)
        gevent.sleep(0)
        assert calls
        half.on_readable(None)
        with gevent.Timeout(PATIENCE):
            while not (found := received(half)):
                pass
        assert found == [(0x2, bytes(range(256)) * 1024)]


def test_bytes_that_nobody_has_read_are_no_rest() -> None:
    stream = FakeStream()
    busy = Receiver(stream, Decoder(server=True, max_message=100), Turn(account("")))
    waiting = gevent.spawn(busy.receive)
    gevent.sleep(0)
    assert busy.quiet(0.0)
    stream.feed(MESSAGE)
    assert not busy.quiet(0.0)
    waiting.kill()


def test_of_too_many_halves_at_rest_the_oldest_is_refused(room: LongMessages) -> None:
    """As when many clients stall together. Their greenlets have ended: they begin again, to be refused."""
    long = frame(0x82, bytes(1_000_000), masked=True)
    halves, woken = list[Receiver](), list[int]()
    for number in range(3):
        stream = FakeStream(long[:800_000])
        half = Receiver(stream, Decoder(server=True, max_message=1 << 20), Turn(account("")), source="one")
        while stream.unread():
            assert half.receive() == []
        half.on_readable(lambda number=number: woken.append(number))  # type: ignore[misc]
        halves.append(half)
    gevent.sleep(0)
    gevent.sleep(0)
    assert woken == [0]
    with pytest.raises(ProtocolError, match="too many long messages"):
        halves[0].receive()
    # One alone that has too much is refused as well.
    room.hold("another", "one", 0)
    alone = LongMessages(1000)
    with pytest.raises(ProtocolError):
        alone.hold("alone", "one", 2000)
    for half in halves:
        half.release()


def test_the_one_that_rests_is_refused_itself_if_it_has_most(room: LongMessages) -> None:
    room.hold("other", "another", 700_000, lambda exc: None)
    stream, woken = FakeStream(frame(0x82, bytes(1_000_000), masked=True)[:990_000]), list[int]()
    half = Receiver(stream, Decoder(server=True, max_message=1 << 20), Turn(account("")), source="one")
    while stream.unread():
        assert half.receive() == []
    half.on_readable(lambda: woken.append(1))
    gevent.sleep(0)
    assert woken == [1]
    with pytest.raises(ProtocolError, match="too many long messages"):
        half.receive()
    half.release()


def test_what_is_discarded_ends_with_the_stream() -> None:
    stream = FakeStream(MESSAGE, b"\xff" * 100, b"")
    receiver(stream).discard()
    assert stream.reads == 3
    with pytest.raises(ConnectionResetError):
        receiver(FakeStream(MESSAGE, ConnectionResetError())).discard()


def test_release_frees_the_watcher_and_the_error() -> None:
    stream = FakeStream(b"\xff\xff")
    wrong = receiver(stream)
    with pytest.raises(ProtocolError):
        wrong.receive()
    wrong.release()
    assert stream.watchers_closed


PONG = frame(0x8A, b"8 bytes!", masked=True)


def at_rest(*pieces: bytes | OSError) -> tuple[Receiver, FakeStream]:
    """A server's receiver at rest, for whom these come."""
    stream = FakeStream(*pieces)
    found = Receiver(stream, Decoder(server=True, max_message=100), Turn(account("")))
    found.on_readable(lambda: None)
    return found, stream


def test_a_pong_alone_is_taken_at_rest() -> None:
    resting, stream = at_rest(PONG)
    before = resting.heard
    assert resting.skip(Opcode.PONG, b"8 bytes!")
    assert (stream.unread(), resting.read) == (0, len(PONG))
    assert resting.heard >= before
    resting.on_readable(None)
    stream.feed(MESSAGE)
    assert received(resting) == [EVENT]


@pytest.mark.parametrize(
    "data",
    [
        *(PONG[:1], PONG[:5], PONG[:-1], PONG + b"\x82", PONG + MESSAGE, PONG + PONG, MESSAGE, MESSAGE[:3]),
        *(frame(0x8A, b"7 bytes", masked=True), frame(0x8A, b"8 BYTES!", masked=True)),
        *(frame(0x89, b"8 bytes!", masked=True), frame(0x82, bytes(99), masked=True) * 3),
    ],
)
def test_whatever_else_comes_at_rest_is_received_as_always(data: bytes) -> None:
    resting, stream = at_rest(data)
    assert not resting.skip(Opcode.PONG, b"8 bytes!")
    assert not resting.skip(Opcode.PONG, b"8 bytes!")
    resting.on_readable(None)
    always = receiver(FakeStream(data + MESSAGE))
    stream.feed(MESSAGE)
    expected, found = list[object](), list[object]()
    for each, events in ((resting, found), (always, expected)):
        with contextlib.suppress(ProtocolError):
            while len(events) < 10 and (each.undecoded or each._stream.unread()):
                events += received(each)
    assert found == expected


def test_an_unmasked_pong_is_a_mistake_at_rest_too() -> None:
    resting, _ = at_rest(frame(0x8A, b"8 bytes!", masked=False))
    assert not resting.skip(Opcode.PONG, b"8 bytes!")
    resting.on_readable(None)
    with pytest.raises(ProtocolError, match="unmasked"):
        received(resting)


def test_how_the_connection_ended_at_rest_is_told() -> None:
    resting, _ = at_rest(ConnectionResetError(104, "Connection reset by peer"))
    assert not resting.skip(Opcode.PONG, b"8 bytes!")
    assert not resting.skip(Opcode.PONG, b"8 bytes!")
    with pytest.raises(ConnectionClosed, match="Connection reset"):
        received(resting)
    resting, _ = at_rest(b"", b"")
    assert not resting.skip(Opcode.PONG, b"8 bytes!")
    with pytest.raises(ConnectionClosed, match="without a Close"):
        received(resting)
