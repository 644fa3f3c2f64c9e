"""How much padding is sent and when, and which connections get it. No kernel, no clock."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from etherws.tunnel.padding import (
    ALL,
    CLIENT,
    LOOK_MIN,
    LOOKS,
    LOST_MAX,
    MESSAGE_MAX,
    MESSAGE_MIN,
    ONE_CLIENT,
    RESERVE,
    ROUND_TRIP_MIN,
    SECONDS_MAX,
    Grants,
    Padding,
    Rate,
    message,
)
from etherws.tunnel.tcp_facts import TcpFacts
from etherws.tunnel.wire import PADDING_MAX

SEGMENT, TRIP = 1448, 0.04

FACTS = TcpFacts(segment=SEGMENT, round_trip=TRIP, shortest=TRIP, window=10)


class Path:
    """A connection, its alarm and its clock: each look is made by the test."""

    def __init__(self, facts: TcpFacts = FACTS) -> None:
        self.facts, self.takes, self.now = facts, True, 1000.0
        self.sent: list[bytes] = []
        self.next: float | None = None
        self.cancelled = False
        self.padding = Padding(self, self.alarm, "ethws0", lambda: self.now)

    def alarm(self, call: Callable[[], object]) -> Path:
        """The alarm of this call is this object."""
        self._call = call
        return self

    def set(self, seconds: float) -> None:
        """As Alarm.set()."""
        self.next = seconds

    def cancel(self) -> None:
        """As Alarm.cancel()."""
        self.cancelled, self.next = True, None

    def tcp_facts(self) -> TcpFacts:
        """As Connection.tcp_facts()."""
        return self.facts

    def pad(self, message: bytes) -> bool:
        """As Connection.pad()."""
        if self.takes:
            self.sent.append(message)
        return self.takes

    def look(self, **changes: float) -> int:
        """Let the time of the next look come, when TCP has changed so. Return how many bytes that sent."""
        assert self.next is not None
        self.now, self.next = self.now + self.next, None
        self.facts = self.facts._replace(**changes)  # type: ignore[arg-type]
        before = sum(map(len, self.sent))
        self._call()
        return sum(map(len, self.sent)) - before

    @property
    def over(self) -> bool:
        """Whether no look follows."""
        return self.cancelled and self.next is None


def begun(facts: TcpFacts = FACTS) -> Path:
    """One that has begun, with a long path."""
    path = Path(facts)
    path.padding.begin()
    assert path.next == 0
    return path


@pytest.mark.parametrize("shortest", [0.0, 0.0001, ROUND_TRIP_MIN - 0.0001])
def test_a_short_path_gets_none(caplog: pytest.LogCaptureFixture, shortest: float) -> None:
    caplog.set_level(logging.DEBUG, "etherws")
    # Zero is what is no TCP.
    path = Path(FACTS._replace(shortest=shortest))
    path.padding.begin()
    assert path.next is None
    assert not path.sent
    assert "ethws0: no padding: the round trip" in caplog.text


def test_it_takes_what_the_window_has_but_for_a_reserve_for_frames() -> None:
    path = begun()
    assert path.look() == (10 - RESERVE) * SEGMENT
    assert path.next == TRIP / LOOKS
    # Its own segments are on their way now; frames take room, too.
    for on_their_way in (8, 10, 12):
        assert path.look(on_their_way=on_their_way) == 0
    assert path.look(on_their_way=4, window=14) == 8 * SEGMENT
    # At most one message at a time, and less if something waits in the kernel: a frame that comes must not wait long.
    assert path.look(on_their_way=0, window=100) == MESSAGE_MAX
    assert path.look(unsent=MESSAGE_MAX - 2000) == 2000
    assert path.look(unsent=MESSAGE_MAX) == 0
    assert path.look(unsent=MESSAGE_MAX - SEGMENT + 1) == 0
    assert not path.over


def test_all_together_is_never_more_than_the_peer_takes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "etherws")
    path = begun(FACTS._replace(window=1000))
    while not path.over:
        assert path.look() > 0
    assert sum(map(len, path.sent)) == PADDING_MAX
    assert len(path.sent) == PADDING_MAX // MESSAGE_MAX
    assert [record.getMessage() for record in caplog.records] == ["ethws0: sent 131072 bytes of padding: that is all"]


def test_the_end_is_sent_though_it_is_less_than_a_segment() -> None:
    path = begun(FACTS._replace(window=1000))
    while not path.over:
        path.look(unsent=MESSAGE_MAX - 15_000)
    left = PADDING_MAX % 15_000
    assert [len(each) for each in path.sent] == [15_000] * (PADDING_MAX // 15_000) + [left]


def test_less_than_a_message_is_not_sent() -> None:
    path = begun(FACTS._replace(window=1000))
    path.look(unsent=2)
    while not path.over:
        path.look(unsent=0)
    assert PADDING_MAX - MESSAGE_MIN < sum(map(len, path.sent)) < PADDING_MAX


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"round_trip": 1.3 * TRIP + 0.005}, "the path becomes slower"),
        ({"retransmitted": 4 + LOST_MAX + 1}, "the path loses much"),
        ({"segment": 0, "window": 0}, "the connection has ended"),
    ],
)
def test_a_path_that_is_no_longer_good_ends_it(
    caplog: pytest.LogCaptureFixture, changes: dict[str, float], why: str
) -> None:
    caplog.set_level(logging.DEBUG, "etherws")
    path = begun(FACTS._replace(retransmitted=4))
    assert path.look(round_trip=1.2 * TRIP + 0.005, retransmitted=4 + LOST_MAX) > 0
    assert path.look(**changes) == 0
    assert path.over
    assert caplog.records[-1].getMessage().endswith(f": {why}")


def test_frames_that_wait_end_it() -> None:
    path = begun()
    path.takes = False
    assert path.look() == 0
    assert path.over


def test_it_ends_when_its_time_is_over() -> None:
    path = begun(FACTS._replace(on_their_way=10))
    looks = 0
    while not path.over:
        looks += 1
        assert path.look() == 0
    assert SECONDS_MAX <= path.now - 1000 < SECONDS_MAX + TRIP
    assert looks <= 2 + SECONDS_MAX * LOOKS / ROUND_TRIP_MIN


def test_looks_are_not_made_all_the_time() -> None:
    path = begun(FACTS._replace(shortest=ROUND_TRIP_MIN))
    path.look(shortest=0.0001)
    assert path.next == LOOK_MIN


def test_it_can_be_stopped() -> None:
    path = begun()
    path.padding.stop()
    assert path.over


def test_a_message_begins_with_a_length_of_zero_and_is_random() -> None:
    assert message(MESSAGE_MIN) == bytes(4)
    one, other = message(1000), message(1000)
    assert one[:4] == other[:4] == bytes(4)
    assert len(one) == 1000
    assert one != other


class Clock:
    """Seconds that the test says."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_client_gets_padding_once_in_five_minutes_for_each_of_its_connections() -> None:
    clock = Clock()
    grants = Grants(CLIENT, clock=clock)
    assert grants.take("0")
    # Lost again and again.
    for _ in range(299):
        clock.now += 1
        assert not grants.has("0")
        assert not grants.take("0")
    assert grants.take("1")
    clock.now += 1
    assert grants.has("0")
    assert grants.take("0")


def test_a_server_grants_the_connections_of_a_link_at_once_and_then_one_in_a_minute() -> None:
    clock = Clock()
    grants = Grants(ONE_CLIENT, Rate(1000, 1.0), clock)
    assert [grants.take("a") for _ in range(18)] == [True] * 16 + [False] * 2
    assert grants.take("b")
    clock.now += 60
    assert [grants.take("a") for _ in range(2)] == [True, False]
    clock.now += 3600
    assert [grants.take("a") for _ in range(18)] == [True] * 16 + [False] * 2


def test_a_storm_gets_next_to_none_whoever_they_are() -> None:
    clock, granted = Clock(), 0
    grants = Grants(ONE_CLIENT, clock=clock)
    for number in range(1000):
        granted += grants.take(f"client {number}")
        clock.now += 0.01
    assert granted == ALL.burst + 9
    # What they were granted by themselves is not remembered for ever, and was never more than that.
    assert len(grants._wholes) <= granted
    clock.now += 3600
    assert grants.take("a")
    assert len(grants._wholes) == 1


def test_asking_takes_nothing() -> None:
    grants = Grants(Rate(1, 1.0), Rate(1, 1.0), Clock())
    assert all(grants.has("a") for _ in range(5))
    assert grants.take("a")
    assert not grants.has("b")
