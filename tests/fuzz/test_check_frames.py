"""Frames of a check, by both ends: whatever comes is a message, bulk or a breach, and is read as docs/wire.rst says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from etherws.access.policy import Profile
from etherws.check.path.measuring import Measuring
from etherws.errors import ProtocolError
from etherws.server.responder import CheckSession
from etherws.tunnel.check_frames import UNANSWERED_MAX, Kind, Message, Report, read, write
from etherws.tunnel.check_traffic import Count
from etherws.tunnel.tcp_facts import TcpFacts
from etherws.tunnel.turns import LastAccount, Turn

numbers = st.integers(0, (1 << 64) - 1)
reports = st.builds(
    Report,
    *(numbers, numbers, st.booleans(), st.booleans()),
    *[st.integers(0, (1 << 32) - 1)] * 3,
    st.booleans(),
    st.text("abz_09", max_size=16),
)
messages = st.builds(
    lambda kind, number, sent, value, report: Message(
        kind, number, sent, sent // 2, sent // 3, value, 9, report if kind is Kind.REPORT else None
    ),
    st.sampled_from(list(Kind)),
    st.integers(0, (1 << 32) - 1),
    numbers,
    numbers,
    reports,
)


def plainly(frame: bytes) -> tuple[int, ...] | None:
    """A frame by docs/wire.rst, sentence by sentence; None if it breaks a rule."""
    if not 60 <= len(frame) <= 9014 or frame[:14] != bytes(12) + b"\x88\xb5" or not 1 <= frame[14] <= 6:
        return None
    if int.from_bytes(frame[16:18], "big") != len(frame) or (frame[14] == 5 and len(frame) < 106):
        return None
    places = ((14, 15), (18, 22), (22, 30), (30, 38), (38, 46), (46, 54), (54, 58))
    return tuple(int.from_bytes(frame[start:end], "big") for start, end in places)


@given(messages, st.integers(0, 9014), st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=3))
def test_a_frame_is_read_as_the_document_says(message: Message, size: int, changes: list[tuple[int, int]]) -> None:
    packet = bytearray(write(message, size))
    for at, value in changes:
        packet[at % len(packet)] = value
    expected = plainly(bytes(packet[10:]))
    try:
        found = read(memoryview(packet))
    except ProtocolError:
        assert expected is None
        return
    values = (found.kind, found.number, found.sent, found.received, found.answered, found.value, found.round_trip)
    assert values == expected
    if not changes:
        assert (found.kind, found.number, found.report) == (message.kind, message.number, message.report)


@given(st.lists(st.binary(max_size=200) | st.builds(write, messages), max_size=5))
def test_whatever_comes_is_counted_read_or_refused(packets: list[bytes]) -> None:
    count, read_so_far = Count(), 0
    try:
        for _ in count.take(packets, 1):
            read_so_far += 1
    except ProtocolError:
        pass
    assert count.size <= sum(map(len, packets))
    assert read_so_far <= len(packets)


class Quiet:
    """A connection on which nothing is sent, and that has no facts."""

    def tcp_facts(self) -> TcpFacts:
        """None."""
        return TcpFacts()


@given(st.lists(messages, max_size=80), st.none() | st.integers(0, 1000))
def test_a_server_answers_or_refuses_and_keeps_little(said: list[Message], size: int | None) -> None:
    connection: Any = Quiet()
    session = CheckSession(connection, Turn(LastAccount("x")), Profile(), size)
    try:
        for at, message in enumerate(said):
            session._answer(read(write(message)), at)
    except ProtocolError as exc:
        assert exc.code == 1002
    assert session._sender.waiting <= UNANSWERED_MAX
    while session._sender._urgent:
        found = read(session._sender._urgent.popleft()(1))
        assert found.kind in (Kind.ANSWER, Kind.REPORT)
        assert found.number in {message.number for message in said}


@given(st.lists(messages, max_size=80), st.integers(0, 5))
def test_a_client_keeps_what_it_asked_for(said: list[Message], asked: int) -> None:
    connection: Any = Quiet()
    measuring = Measuring(connection)
    for _ in range(asked):
        measuring.probe()
        measuring.ask()
    numbers = set(range(1, 2 * asked + 1))
    try:
        for at, message in enumerate(said):
            # Some numbers are right.
            number = at + 1 if message.number % 2 else message.number
            measuring._note(read(write(replace(message, number=number))), 1.0)
    except ProtocolError as exc:
        assert exc.code == 1002
    assert len(measuring.samples) <= asked
    assert set(measuring.reports) <= numbers
