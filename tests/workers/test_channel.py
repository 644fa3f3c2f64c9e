"""Calls between two processes, here in one; and peers that break the rules."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from hypothesis import given
from hypothesis import strategies as st

from etherws.errors import ChannelError, NoPort
from etherws.workers import channel, datagrams
from etherws.workers.channel import Answer, Channel, Request
from etherws.workers.datagrams import DATAGRAM_MAX, DESCRIPTORS_MAX, pair
from tests.lab.descriptors import none_left
from tests.lab.hosts import PATIENCE


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    with gevent.Timeout(PATIENCE):
        yield


class End:
    """One end, which notes what it is told. Calls are answered by the functions of `verbs`."""

    def __init__(self, sock: socket.socket, **verbs: Callable[..., Answer]) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.broken: list[str] = []
        self.ended = Event()
        self.verbs = verbs
        self.channel = Channel(sock)
        self.channel.start(
            self._serve, lambda verb, message: self.told.append((verb, message)), self.broken.append, self.ended.set
        )

    def _serve(self, verb: str, message: dict[str, Any], request: Request) -> Answer:
        return self.verbs[verb](message, request)


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    one, other = map(End, pair())
    yield one, other
    one.channel.close()
    other.channel.close()


def test_calls_are_answered_in_whatever_order(ends: tuple[End, End]) -> None:
    one, other = ends
    first_may_go = Event()

    def slow(message: dict[str, Any], _: Request) -> Answer:
        first_may_go.wait()
        return Answer({"said": message["what"]})

    other.verbs = {"slow": slow, "quick": lambda message, _: Answer({"said": message["what"] * 2})}
    waiting = gevent.spawn(one.channel.call, "slow", {"what": 1}, PATIENCE)
    assert one.channel.call("quick", {"what": 4}, PATIENCE).values["said"] == 8
    first_may_go.set()
    assert waiting.get().values["said"] == 1
    # In both directions.
    one.verbs = {"back": lambda *_: Answer({})}
    assert other.channel.call("back", {}, PATIENCE).fds == []


def test_an_error_is_raised_where_it_was_asked(ends: tuple[End, End], caplog: pytest.LogCaptureFixture) -> None:
    one, other = ends

    def full(*_: Any) -> Answer:
        raise NoPort("all are taken; try later")

    other.verbs = {"full": full}
    with pytest.raises(NoPort, match="all are taken; try later"):
        one.channel.call("full", {}, PATIENCE)
    # A mistake of ours is told too, and ends nothing.
    with pytest.raises(ChannelError, match="unexpected KeyError"):
        one.channel.call("no such verb", {}, PATIENCE)
    assert "cannot answer 'no such verb'" in caplog.text
    assert not other.broken


def test_descriptors_come_with_an_answer_and_then_is_called_after_it(ends: tuple[End, End]) -> None:
    one, other = ends
    reader, writer = os.pipe()
    other.verbs = {"pipe": lambda *_: Answer({}, (reader,), lambda: other.channel.tell("sent", {}))}
    answer = one.channel.call("pipe", {}, PATIENCE)
    os.write(writer, b"x")
    assert os.read(answer.fds[0], 1) == b"x"
    assert not os.get_inheritable(answer.fds[0])
    while not one.told:
        gevent.sleep(0)
    for fd in (*answer.fds, reader, writer):
        os.close(fd)


def test_an_answer_that_nobody_waits_for_is_given_to_late(ends: tuple[End, End]) -> None:
    one, other = ends
    reader, writer = os.pipe()
    cancelled, late = Event(), list[Any]()

    def slow(_: dict[str, Any], request: Request) -> Answer:
        request.on_cancel = cancelled.set
        cancelled.wait()
        assert request.cancelled
        return Answer({"said": 1}, (reader,))

    other.verbs = {"slow": slow}
    with pytest.raises(ChannelError, match="no answer to 'slow' within"):
        one.channel.call("slow", {}, 0.01, late.append)
    while not late:
        gevent.sleep(0)
    assert late[0].values["said"] == 1
    # It was closed when late() had seen it.
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")
    os.close(writer)


def test_what_one_end_tells_comes_in_order(ends: tuple[End, End]) -> None:
    one, other = ends
    for number in range(1000):
        one.channel.tell("number", {"is": number})
    while len(other.told) < 1000:
        gevent.sleep(0.001)
    assert [message["is"] for _, message in other.told] == list(range(1000))


def test_the_end_of_a_peer_ends_its_calls_and_ours(ends: tuple[End, End]) -> None:
    one, other = ends
    began, cancelled = Event(), Event()

    def slow(_: dict[str, Any], request: Request) -> Answer:
        began.set()
        request.on_cancel = cancelled.set
        Event().wait()
        return Answer({})

    one.verbs = other.verbs = {"slow": slow}
    calls = [gevent.spawn(end.channel.call, "slow", {}, PATIENCE) for end in ends]
    began.wait()
    one.channel.close()
    other.ended.wait()
    cancelled.wait()
    for call in calls:
        with pytest.raises(ChannelError, match="has ended"):
            call.get()
    with pytest.raises(ChannelError, match="has ended"):
        other.channel.call("slow", {}, PATIENCE)
    other.channel.tell("anything", {})
    assert not other.broken


def test_a_peer_that_does_not_read_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "QUEUE_MAX", 10)
    mine, silent = pair()
    one = End(mine)
    told = 0
    while not one.broken:
        one.channel.tell("x", {"y": "z" * 300})
        told += 1
    assert one.broken == ["it does not read what it is sent"]
    assert told < 2000
    with pytest.raises(ChannelError, match="does not read"):
        one.channel.call("x", {}, PATIENCE)
    # It may still be alive, and is heard when it ends.
    gevent.sleep(0)
    assert not one.ended.is_set()
    silent.close()
    one.ended.wait()


def test_what_waits_is_sent_when_the_peer_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, slow = pair()
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    one = End(mine)
    reader, writer = os.pipe()
    one.verbs = {"pipe": lambda *_: Answer({}, (reader,), lambda: os.close(reader))}
    for number in range(100):
        one.channel.tell("number", {"is": number})
    slow.send(b'{"call":1,"verb":"pipe"}')
    while len(one.channel._datagrams._queue) < 90:
        gevent.sleep(0)
    gevent.sleep(0.001)
    other = End(slow)
    other.channel._pending[1] = pending = channel._Pending()
    answer: Any = pending.answer.get()
    assert [message["is"] for _, message in other.told] == list(range(100))
    os.write(writer, b"x")
    assert os.read(answer.fds[0], 1) == b"x"
    os.close(answer.fds[0])
    os.close(writer)
    one.channel.close()
    other.channel.close()


BAD = {
    "no JSON": b"\xff",
    "no object": b"[]",
    "deep": b"[" * 60_000,
    "nothing in it": b"{}",
    "too long": bytes(DATAGRAM_MAX + 1),
    "empty": b"",
    "an answer to nothing": b'{"answer":1}',
    "no number": b'{"answer":"1"}',
    "a call without a verb": b'{"call":1}',
    "a huge number": b'{"call":' + b"9" * 5000 + b',"verb":"x"}',
    "the constant Infinity": b'{"call":Infinity,"verb":"x"}',
    "long without a descriptor": b"long",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_peer_that_breaks_the_rules_is_heard_no_more(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "LOOK", 0.001)
    mine, bad = pair()
    one = End(mine)
    bad.send(data)
    while not one.broken:
        gevent.sleep(0.001)
    bad.send(b'{"tell":"more"}')
    bad.send(data)
    gevent.sleep(0.005)
    assert len(one.broken) == 1
    assert not one.told
    assert not one.ended.is_set()
    bad.close()
    one.ended.wait()


def test_two_calls_of_one_number_and_too_many_are_rules_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*_: Any) -> Answer:
        Event().wait()
        return Answer({})

    monkeypatch.setattr(channel, "CALLS_MAX", 3)
    for numbers in ((1, 1), range(4)):
        mine, bad = pair()
        one = End(mine, wait=wait)
        for number in numbers:
            bad.send(b'{"call":%d,"verb":"wait"}' % number)
        while not one.broken:
            gevent.sleep(0)
        assert "calls too often" in one.broken[0]
        bad.close()
        one.ended.wait()
    mine, silent = pair()
    one = End(mine)
    for _ in range(3):
        gevent.spawn(one.channel.call, "x", {}, PATIENCE)
    gevent.sleep(0)
    with pytest.raises(ChannelError, match="wait for their answers"):
        one.channel.call("x", {}, PATIENCE)
    one.channel.close()
    silent.close()


def test_descriptors_that_nobody_asked_for_are_closed() -> None:
    mine, bad = pair()
    one = End(mine)
    reader, writer = os.pipe()
    socket.send_fds(bad, [b'{"tell":"x"}'], [writer] * DESCRIPTORS_MAX)
    socket.send_fds(bad, [b"{"], [writer])
    socket.send_fds(bad, [b'{"tell":"x"}'], [writer] * (DESCRIPTORS_MAX + 1))
    os.close(writer)
    bad.close()
    one.ended.wait()
    assert len(one.told) == 1
    # No other writer is left: this is the end, and does not block.
    assert os.read(reader, 1) == b""
    os.close(reader)


@pytest.mark.parametrize("left", [0, 1])
def test_a_process_without_descriptors_hears_on(left: int) -> None:
    mine, other = pair()
    one = End(mine)
    reader, writer = os.pipe()
    asking = gevent.spawn(one.channel.call, "x", {}, PATIENCE)
    gevent.sleep(0)
    with none_left(but=left):
        socket.send_fds(other, [b'{"answer":1,"is":"here"}'], [writer, writer])
        other.send(b'{"tell":"more"}')
        while not one.told:
            gevent.sleep(0.001)
    assert not one.broken
    answer = asking.get()
    assert (answer.values["is"], answer.fds) == ("here", [])
    os.close(writer)
    # What came of them was closed.
    assert os.read(reader, 1) == b""
    os.close(reader)
    other.close()
    one.ended.wait()


def test_an_answer_that_cannot_wait_for_want_of_descriptors_is_an_error() -> None:
    mine, other = pair()
    undone: list[bool] = []
    reader, writer = os.pipe()
    answer = Answer({"is": "here"}, [writer, writer], undo=lambda: undone.append(True))
    one = End(mine, give=lambda *_: answer)
    while not one.channel._datagrams.waiting:
        one.channel.tell("much", {"is": "x" * 10_000})
    other.setblocking(False)
    with none_left(but=1):
        other.send(b'{"call":1,"verb":"give"}')
        while not undone:
            gevent.sleep(0.001)
    assert not one.broken
    heard: dict[str, Any] = {}
    while heard.get("answer") != 1:
        try:
            heard = json.loads(other.recv(DATAGRAM_MAX))
        except BlockingIOError:
            gevent.sleep(0.001)
    assert "LimitNOFILE" in heard["text"]
    other.close()
    one.ended.wait()
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_long_message_that_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    mine, other = pair()
    one = End(mine)
    with none_left():
        socket.send_fds(other, [b"long"], [other.fileno()])
        other.send(b'{"tell":"more"}')
        while not one.told:
            gevent.sleep(0.001)
    assert not one.broken
    assert "LimitNOFILE" in caplog.text
    other.close()
    one.ended.wait()


def test_a_long_message_that_cannot_be_sent_breaks_nothing(ends: tuple[End, End]) -> None:
    one, other = ends
    other.verbs["long"] = lambda message, _: Answer({"is": "x" * DATAGRAM_MAX})
    with none_left():
        with pytest.raises(ChannelError, match="LimitNOFILE"):
            one.channel.call("x", {"is": "x" * DATAGRAM_MAX}, PATIENCE)
        with pytest.raises(ChannelError, match="LimitNOFILE"):
            one.channel.call("long", {}, PATIENCE)
    assert one.channel.call("long", {}, PATIENCE).values["is"] == "x" * DATAGRAM_MAX
    assert not one.broken + other.broken


@given(
    st.lists(
        st.binary(max_size=60)
        | st.fixed_dictionaries(
            {},
            optional={
                "call": st.integers() | st.text(),
                "answer": st.integers(0, 3) | st.none(),
                "cancel": st.integers(0, 3) | st.lists(st.none()),
                "verb": st.sampled_from(["echo", "other"]) | st.integers(),
                "tell": st.text(max_size=3) | st.floats(),
                "error": st.sampled_from(["NoPort", "ClientGone", 7]),
                "text": st.text(max_size=3) | st.none(),
            },
        ).map(lambda message: json.dumps(message).encode()),
        max_size=6,
    )
)
def test_nothing_that_a_peer_sends_ends_the_reader(sent: list[bytes]) -> None:
    mine, bad = pair()
    one = End(mine, echo=lambda message, _: Answer({}), other=lambda message, _: Answer({}))
    asking = gevent.spawn(one.channel.call, "x", {}, PATIENCE)
    gevent.sleep(0)
    for data in filter(None, sent):
        bad.send(data)
    bad.close()
    one.ended.wait()
    # Whoever waits for it hears that.
    asking.join()
    assert asking.ready()
