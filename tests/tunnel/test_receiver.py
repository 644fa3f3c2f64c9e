"""What a receiver makes of bytes in any pieces, of the end and of errors; how it waits. No kernel."""

from __future__ import annotations

from time import monotonic

import gevent
import pytest

from etherws.errors import ConnectionClosed, ProtocolError
from etherws.tunnel import receiver as receiver_module
from etherws.tunnel.frames import READ_BYTES, Decoder, Opcode
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.receiver import Receiver
from etherws.tunnel.scheduling import TURN_SECONDS
from tests.lab.hosts import PATIENCE
from tests.lab.streams import FakeStream
from tests.lab.websocket import frame

MESSAGE = frame(0x82, b"message", masked=True)
EVENT = (Opcode.BINARY, b"message")


def receiver(stream: FakeStream, early: bytes = b"") -> Receiver:
    return Receiver(stream, Decoder(server=True, max_message=100_000), early)


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


def test_it_waits_once_a_turn_is_over_or_when_the_kernel_has_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    # A message that fills four reads, and a little more.
    stream = FakeStream(frame(0x82, bytes(4 * READ_BYTES), masked=True), MESSAGE)
    reading = Receiver(stream, Decoder(server=True, max_message=4 * READ_BYTES))
    now, waits = 100.0, 0

    class Hub:
        def wait(self, watcher: object) -> None:
            nonlocal waits
            waits += 1

    monkeypatch.setattr(gevent, "get_hub", Hub)
    monkeypatch.setattr(receiver_module, "monotonic", lambda: now)
    for elapsed, drained, expected in [
        (0, True, 1),
        (TURN_SECONDS / 2, True, 1),
        (TURN_SECONDS, True, 2),
        # TLS still has bytes: to wait for the kernel could be for ever.
        (1, False, 2),
        (0, True, 3),
        # The last read was short.
        (0, True, 4),
    ]:
        now += elapsed
        stream.drained = drained
        events = reading.receive()
        assert waits == expected
    assert events == [EVENT]


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


def test_a_limited_rate_counts_bytes_and_sleeps_before_the_next_read(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = 100.0, list[float]()

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    empty = frame(0x82, b"", masked=True)
    stream = FakeStream(*[empty * 1000] * 3)
    limited = receiver(stream)
    limited.limit_rate(Pacer(80_000))
    monkeypatch.setattr(receiver_module, "monotonic", lambda: now)
    monkeypatch.setattr(gevent, "sleep", sleep)
    for _ in range(3):
        assert len(limited.receive()) == 1000
    # 6,000 bytes at 10,000 per second, but for the credit of 10 ms.
    assert list(filter(None, slept)) == [pytest.approx(0.59), pytest.approx(0.6)]


def test_connections_that_share_a_rate_pay_for_each_other_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = 100.0, list[float]()

    def sleep(seconds: float) -> None:
        nonlocal now
        if seconds:
            slept.append(seconds)
            now += seconds
            if len(slept) == 1:
                # Another one lets bytes pass meanwhile.
                pacer.wait(10_000, now)

    monkeypatch.setattr(receiver_module, "monotonic", lambda: now)
    monkeypatch.setattr(gevent, "sleep", sleep)
    pacer = Pacer(80_000)
    first = receiver(FakeStream(frame(0x82, bytes(1000), masked=True)))
    first.limit_rate(pacer)
    first.receive()
    # It ends. What it received is owed by the next one, before a byte of that passes.
    debt = pacer.wait(0, now)
    assert debt == pytest.approx(0.09, abs=0.01)
    second = receiver(FakeStream(MESSAGE))
    second.limit_rate(pacer)
    second.receive()
    assert slept == [pytest.approx(debt), pytest.approx(1.0)]


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
