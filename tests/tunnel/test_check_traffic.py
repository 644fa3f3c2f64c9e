"""What both ends of a check send and count."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from etherws.errors import ConnectionClosed, ProtocolError
from etherws.tunnel import check_traffic
from etherws.tunnel.check_frames import SIZE_FULL, Kind, Message, read, write
from etherws.tunnel.check_traffic import CHUNK, Bulk, CheckSender, Count
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.turns import Turn, account

DATA = write(Message(Kind.DATA), SIZE_FULL)


def test_bulk_is_limited_in_time_and_says_what_it_sent() -> None:
    bulk, now, sent = Bulk(1.0), 100.0, 0
    while (found := bulk.due(now, CHUNK)) != ((), 0.0):
        assert found[1] == 0
        assert CHUNK - len(DATA) < SIZE_FULL * len(found[0]) <= CHUNK
        sent += SIZE_FULL * len(found[0])
        now += 0.25
    assert now == 101.0
    assert (bulk.size, bulk.first, bulk.last) == (sent, 100 * 10**9, int(100.75e9))
    assert sent == 4 * SIZE_FULL * (CHUNK // len(DATA))


@pytest.mark.parametrize("rate", [64_000, 1_000_000, 1_000_000_000])
def test_bulk_keeps_to_its_rate_by_the_clock(rate: int) -> None:
    bulk, now, turns = Bulk(2.0, [Pacer(rate), Pacer(10 * rate)]), 5.0, 0
    while True:
        packets, wait = bulk.due(now, CHUNK)
        if not packets and not wait:
            break
        # An answer never waits behind more than some milliseconds of bulk, or one frame.
        assert len(packets) == 1 or SIZE_FULL * len(packets) * 8 / rate <= 0.005
        now += wait
        turns += 1
    assert bulk.size * 8 == pytest.approx(2 * rate, rel=0.02, abs=2 * SIZE_FULL * 8 + 0.01 * rate)
    assert turns < 10_000


def test_bulk_with_a_debt_is_over_in_time() -> None:
    pacer = Pacer(1000)
    pacer.wait(1_000_000, 0.0)
    bulk = Bulk(1.0, [pacer])
    assert bulk.due(0.0, CHUNK) == ((), 1.0)
    assert bulk.due(1.0, CHUNK) == ((), 0.0)


def test_what_came_at_first_tells_no_rate() -> None:
    count = Count()
    assert list(count.take([DATA, DATA], 10)) == []
    assert count.taken() == (0, 10, 10)
    assert count.taken() == (0, 0, 0)
    for now in (10, 20, 30):
        list(count.take([DATA, DATA], now))
    assert count.taken() == (4 * SIZE_FULL, 10, 30)


def test_other_messages_come_between_what_is_counted() -> None:
    count, ask = Count(), write(Message(Kind.ASK, 5))
    list(count.take([DATA], 1))
    seen = [(message.number, count.size) for message in count.take([memoryview(DATA), ask, DATA, ask], 2)]
    assert seen == [(5, SIZE_FULL), (5, 2 * SIZE_FULL)]
    with pytest.raises(ProtocolError):
        list(count.take([DATA, b"x"], 3))


class FakeConnection:
    """Takes what is sent as `taken` says; waits end at once."""

    def __init__(self, *taken: bool) -> None:
        self.sent: list[list[bytes]] = []
        self.states: list[object] = []
        self.waits = 0
        self._taken = list(taken)
        self.congestion = SimpleNamespace(update=lambda now, state: self.states.append(state))

    def send_queued(self, packets: list[bytes]) -> bool:
        """Raises as the real one when nothing is left to take."""
        if not self._taken:
            raise ConnectionClosed("over")
        self.sent.append(packets)
        return self._taken.pop(0)

    def flush(self, timeout: float) -> bool:
        """The socket stays full."""
        assert timeout
        return False

    def wait_writable(self) -> int:
        """There is little room again."""
        self.waits += 1
        return 4096


def sender(connection: Any) -> CheckSender:
    return CheckSender(connection, Turn(account("")))


def test_what_is_urgent_goes_ahead_of_bulk_each_in_a_message_of_its_own() -> None:
    connection = FakeConnection(True, True, False, True, True)
    found = sender(connection)
    over: list[bool] = []
    found.begin(Bulk(1000.0), lambda: over.append(True))
    found.say(lambda now: write(Message(Kind.PROBE, 1, now)))
    found.say(lambda now: write(Message(Kind.PROBE, 2, now)))
    assert (found.waiting, found.busy) == (2, True)
    with pytest.raises(ConnectionClosed):
        found.run()
    numbers = [read(packets[0]).number for packets in connection.sent[:2]]
    assert (numbers, [len(packets) for packets in connection.sent[:2]]) == ([1, 2], [1, 1])
    assert {packet for packets in connection.sent[2:] for packet in packets} == {DATA}
    # The socket was full once: from then on little is sent at a time, and only into an empty one.
    assert [len(packets) for packets in connection.sent[2:]] == [CHUNK // len(DATA), 2, 2]
    assert connection.waits == 3
    assert found.sent == sum(len(packet) for packets in connection.sent for packet in packets)
    assert not over


def test_the_end_of_bulk_is_told_when_all_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(check_traffic, "monotonic", lambda: clock.now)
    connection = FakeConnection(False, True)
    found = sender(connection)

    def over() -> None:
        found.say(lambda now: write(Message(Kind.ASK, 7, now)))

    def wait_writable() -> int:
        clock.now += 1
        return 4096

    monkeypatch.setattr(connection, "wait_writable", wait_writable)
    found.begin(Bulk(0.5), over)
    greenlet = gevent.spawn(found.run)
    while len(connection.sent) < 2:
        gevent.sleep(0.001)
    assert read(connection.sent[1][0]).number == 7
    assert not found.busy
    # It sleeps until there is more, and the socket counts as free again.
    gevent.sleep(0)
    greenlet.kill()
    assert connection.sent[2:] == []
