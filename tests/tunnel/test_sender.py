"""What a sender makes of a stream that takes everything, a part, nothing, or fails. No kernel, no clock."""

from __future__ import annotations

import gevent
import pytest

from etherws.errors import ConnectionClosed
from etherws.tunnel.frames import Decoder, Encoder, Opcode
from etherws.tunnel.sender import CONTROL_QUEUE, Sender
from tests.lab.hosts import PATIENCE
from tests.lab.streams import FakeStream
from tests.lab.websocket import feed

BINARY, PING, PONG, CLOSE = Opcode.BINARY, Opcode.PING, Opcode.PONG, Opcode.CLOSE


@pytest.fixture
def stream() -> FakeStream:
    return FakeStream()


@pytest.fixture
def sender(stream: FakeStream) -> Sender:
    return Sender(stream, Encoder(server=True))


def sent(stream: FakeStream) -> list[tuple[int, bytes]]:
    """Everything that was sent, decoded."""
    return feed(Decoder(server=False, max_message=1 << 20), bytes(stream.sent))


def loop() -> None:
    """Let the event loop call what is due."""
    for _ in range(3):
        gevent.sleep(0)


def test_messages_are_sent_at_once_in_one_call(stream: FakeStream, sender: Sender) -> None:
    assert sender.send([b"one", b"two", b"three"])
    assert sent(stream) == [(BINARY, b"one"), (BINARY, b"two"), (BINARY, b"three")]
    assert len(stream.writes) == 1
    assert sender.flush(0)


def test_padding_is_a_message_that_never_goes_before_another(stream: FakeStream, sender: Sender) -> None:
    assert sender.pad(b"padding")
    assert sender.send([b"frame"])
    assert sender.pad(b"more")
    assert sent(stream) == [(BINARY, b"padding"), (BINARY, b"frame"), (BINARY, b"more")]


@pytest.mark.parametrize("what", ["padding", "a ping", "a message"])
def test_there_is_no_more_padding_while_anything_waits(what: str) -> None:
    stream = FakeStream(room=3)
    sender = Sender(stream, Encoder(server=True))
    if what == "padding":
        assert sender.pad(b"padding")
    elif what == "a ping":
        assert sender.ping(b"ping")
    else:
        assert not sender.send([b"frame"])
    assert not sender.pad(b"more")
    stream.room = 100
    assert sender.flush(PATIENCE)
    # A message that had to wait ends padding for good: the path is in use.
    assert sender.pad(b"more") == (what != "a message")
    assert [payload for _, payload in sent(stream)][1:] == ([b"more"] if what != "a message" else [])


def test_there_is_no_padding_behind_a_close_or_on_a_stream_that_failed(stream: FakeStream, sender: Sender) -> None:
    sender.close(1000, "")
    assert not sender.pad(b"padding")
    assert [opcode for opcode, _ in sent(stream)] == [CLOSE]
    failing = Sender(FakeStream(room=0), Encoder(server=True))
    failing.error = ConnectionClosed("over")
    assert not failing.pad(b"padding")


def test_nothing_is_nothing(stream: FakeStream, sender: Sender) -> None:
    assert sender.send([])
    assert not stream.sent


def test_a_long_message_is_not_joined_with_its_header(stream: FakeStream, sender: Sender) -> None:
    message = bytes(100_000)
    taken: list[int] = []
    stream.write = lambda buffers: taken.append(len(buffers)) or sum(map(len, buffers))  # type: ignore
    assert sender.send([message])
    assert taken == [2]


@pytest.mark.parametrize("room", [0, 1, 2, 3, 100, 101, 102, 103])
def test_what_the_kernel_does_not_take_goes_when_there_is_room(room: int) -> None:
    # The header has 2 bytes, the payload 100: the edge lies in either, or between the two.
    stream = FakeStream(room=room)
    sender = Sender(stream, Encoder(server=True))
    whole = room >= 102
    assert sender.send([bytes(range(100))]) is whole
    assert len(stream.sent) == min(room, 102)
    assert sender.flush(0) is whole
    while not sender.flush(0):
        stream.room = 1
        loop()
    assert sent(stream) == [(BINARY, bytes(range(100)))]
    stream.room = 1000
    assert sender.send([b"next"])


def test_who_waits_is_woken_when_all_is_sent(sender: Sender, stream: FakeStream) -> None:
    stream.room = 0
    assert not sender.send([b"late"])
    waiting: list[gevent.Greenlet[..., object]] = [gevent.spawn(sender.flush), gevent.spawn(sender.wait_writable)]
    loop()
    assert not any(greenlet.ready() for greenlet in waiting)
    stream.room = 6
    loop()
    # All is sent, but the kernel has no room yet.
    assert [greenlet.ready() for greenlet in waiting] == [True, False]
    stream.room = 1
    gevent.joinall(waiting, timeout=PATIENCE, raise_error=True)
    assert all(greenlet.ready() for greenlet in waiting)


def test_a_failure_is_told_to_who_sends_next(sender: Sender, stream: FakeStream) -> None:
    stream.fail(ConnectionResetError(104, "Connection reset by peer"))
    with pytest.raises(ConnectionClosed, match="connection lost: Connection reset by peer") as first:
        sender.send([b"x"])
    with pytest.raises(ConnectionClosed) as again:
        sender.send([b"x"])
    assert again.value is first.value is sender.error
    assert sender.flush(0)
    # Nothing more is tried.
    stream.write_error = None
    assert not sender.ping(b"")
    sender.pong(b"")
    sender.close(1000, "")
    sender.wait_writable()
    assert not stream.sent


def test_a_failure_in_the_event_loop_wakes_who_waits(sender: Sender, stream: FakeStream) -> None:
    stream.room = 3
    assert not sender.send([b"message"])
    waiting = gevent.spawn(sender.wait_writable)
    loop()
    stream.fail(BrokenPipeError(32, "Broken pipe"))
    waiting.get(timeout=PATIENCE)
    with pytest.raises(ConnectionClosed, match="Broken pipe"):
        sender.send([b"x"])


def test_a_failure_of_tls_is_a_failure(sender: Sender, stream: FakeStream) -> None:
    stream.encode_error = OSError("internal error")
    with pytest.raises(ConnectionClosed, match="connection lost: internal error"):
        sender.send([b"x"])
    assert sender.flush(0)


def test_an_error_without_words_has_its_name(sender: Sender, stream: FakeStream) -> None:
    stream.fail(TimeoutError())
    with pytest.raises(ConnectionClosed, match="connection lost: TimeoutError"):
        sender.send([b"x"])


def test_a_control_frame_waits_behind_one_message(sender: Sender, stream: FakeStream) -> None:
    stream.room = 4
    assert not sender.send([b"message"])
    assert sender.ping(b"?")
    sender.pong(b"!")
    stream.room = 1000
    loop()
    assert sent(stream) == [(BINARY, b"message"), (PING, b"?"), (PONG, b"!")]


def test_of_many_pings_behind_a_message_the_latest_is_answered(sender: Sender, stream: FakeStream) -> None:
    for _ in range(2):
        stream.room = 0
        stream.sent.clear()
        assert not sender.send([b"message"])
        for number in range(100):
            sender.pong(bytes([number]))
        assert not sender.ping(b"?")
        stream.room = 1000
        loop()
        answers = [(PONG, bytes([number])) for number in [*range(CONTROL_QUEUE), 99]]
        assert sent(stream) == [(BINARY, b"message"), *answers]
        # And as many may wait the next time.
        assert sender.flush(0)


def test_nothing_follows_a_close(sender: Sender, stream: FakeStream) -> None:
    stream.room = 0
    assert not sender.send([b"message"])
    for number in range(CONTROL_QUEUE + 1):
        sender.pong(bytes([number]))
    sender.close(1001, "bye")
    assert not sender.ping(b"?")
    sender.pong(b"!")
    stream.room = 1000
    loop()
    assert sent(stream)[-1] == (CLOSE, b"\x03\xe9bye")
    sender.wait_writable()


def test_release_frees_the_watchers_and_the_error(sender: Sender, stream: FakeStream) -> None:
    stream.room = 0
    assert not sender.send([b"message"])
    sender.error = ConnectionClosed("over")
    sender.release()
    assert stream.watchers_closed
    assert sender.error is None
