"""The server's end of a check: what it answers, what it refuses, and what a hostile client costs."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import gevent
import pytest

from etherws import events
from etherws.access.policy import Profile
from etherws.errors import ConnectionClosed, DeviceError, NoPort, ProtocolError, Refused
from etherws.features import CHECK, IDLE
from etherws.server import responder, takeover
from etherws.server.port import ClientKey
from etherws.server.responder import RATE_MAX, CheckSession, Responder
from etherws.settings import ServerSettings
from etherws.tunnel.check_frames import SIZE_FULL, SIZE_MAX, UNANSWERED_MAX, Kind, Message, Report, read, write
from etherws.tunnel.check_traffic import Count
from etherws.tunnel.turns import LastAccount, Turn
from etherws.tunnel.wire import Version1, Version2
from tests.lab.checks import Pair, check_pair
from tests.lab.environ import environ

DATA = write(Message(Kind.DATA), SIZE_FULL)


def say(pair: Pair, *packets: bytes) -> None:
    """Send packets, and wait until the socket has them."""
    pair.connection.send_queued(packets)
    pair.connection.flush()


def answers(pair: Pair, count: int) -> list[Message]:
    """The next so many messages of the server that are no DATA."""
    found: list[Message] = []
    while len(found) < count:
        found += [read(packet) for packet in pair.connection.recv() if read(packet).kind is not Kind.DATA]
    return found


def _read_all(pair: Pair) -> None:
    while True:
        pair.connection.recv()


@pytest.mark.parametrize("version", [Version1, Version2])
def test_probes_are_answered_in_order_with_the_size_that_they_ask_for(version: type[Version1 | Version2]) -> None:
    with check_pair(version) as pair:
        say(pair, *(write(Message(Kind.PROBE, at, 5 + at, value=size), 70 + at) for at, size in enumerate((60, 9014))))
        found = answers(pair, 2)
    assert [(each.kind, each.number, each.sent, each.size, each.value) for each in found] == [
        (Kind.ANSWER, 0, 5, 60, 70),
        (Kind.ANSWER, 1, 6, SIZE_MAX, 71),
    ]
    assert all(0 < each.received <= each.answered for each in found)


def test_what_comes_is_counted_from_report_to_report() -> None:
    with check_pair() as pair:
        say(pair, DATA, DATA, write(Message(Kind.ASK, 1, 11)))
        one = answers(pair, 1)[0]
        say(pair, write(Message(Kind.ASK, 2)))
        two = answers(pair, 1)[0]
        assert pair.session.received >= 2 * SIZE_FULL
    assert (one.kind, one.number, one.sent, one.received) == (Kind.REPORT, 1, 11, one.answered)
    assert one.received > 0
    assert (two.number, two.value, two.received, two.answered) == (2, 0, 0, 0)
    assert one.report
    assert (one.report.limit_up, one.report.policy_up, one.report.policy_down) == (RATE_MAX, False, False)


def test_the_server_sends_for_as_long_as_it_is_asked_to_and_then_reports() -> None:
    with check_pair(profile=Profile(rate_up=10**7, rate_down=10**6)) as pair:
        say(pair, write(Message(Kind.SEND, 1, 3, value=50_000)))
        count, found = Count(), list[Message]()
        while not found:
            found = list(count.take(pair.connection.recv(), 1))
        report = found[0].report
    # 50 ms of 1 Mbit/s, of which the first 10 may come at once (tunnel/rate_limit.py), and one frame more.
    assert SIZE_FULL <= found[0].value <= 10**6 * 0.06 / 8 + 2 * SIZE_FULL
    assert found[0].received <= found[0].answered
    assert report
    assert (report.limit_up, report.limit_down) == (10**7, 10**6)
    assert (report.policy_up, report.policy_down) == (True, True)


@pytest.mark.parametrize(
    ("packets", "words"),
    [
        ([write(Message(Kind.ANSWER))], "ANSWER, which only a server sends"),
        ([write(Message(Kind.REPORT, report=Report()))], "REPORT, which only a server sends"),
        ([write(Message(Kind.SEND, value=0))], "a request to send for 0 microseconds"),
        ([write(Message(Kind.SEND, value=10_000_001))], "a request to send for 10000001 microseconds"),
        ([write(Message(Kind.SEND, value=10**6))] * 2, "or while this side sends already"),
        ([write(Message(Kind.PROBE, value=9015))], "a probe that asks for 9015 bytes"),
        ([write(Message(Kind.PROBE, value=59))], "a probe that asks for 59 bytes"),
        ([bytes(100)], "a frame that is none of a check"),
        ([write(Message(Kind.PROBE, value=60))] * 20, "more than 8 requests that wait"),
    ],
)
def test_who_breaks_the_rules_is_closed_with_the_reason(
    packets: list[bytes], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer than one slice has: between two slices, answers are sent.
    monkeypatch.setattr(responder, "UNANSWERED_MAX", 8)
    with check_pair() as pair:
        say(pair, *packets)
        reason = pair.ended()
        assert isinstance(reason, ProtocolError)
        assert reason.code == 1002
        assert words in str(reason)
        with pytest.raises(ConnectionClosed, match="code 1002: in a check: "):
            _read_all(pair)


def test_a_client_that_asks_and_never_reads_costs_little_and_is_closed() -> None:
    with check_pair() as pair:
        while not pair.reason:
            say(pair, write(Message(Kind.PROBE, value=SIZE_MAX)))
            # The socket is full, and the server waits for room: no more answers than this are in its memory.
            assert pair.session._sender.waiting <= UNANSWERED_MAX
            gevent.sleep(0)
        assert "more than 64 requests that wait" in str(pair.reason)


def test_the_time_of_a_check_is_over() -> None:
    with check_pair(seconds=0.01) as pair:
        reason = pair.ended()
        assert isinstance(reason, ConnectionClosed)
        assert (reason.code, str(reason)) == (1008, "a check takes 0.01 s at most")
        with pytest.raises(ConnectionClosed, match="code 1008"):
            pair.connection.recv()


def test_a_silent_connection_answers_probes_and_nothing_else() -> None:
    with check_pair(size=1000) as pair:
        say(pair, write(Message(Kind.PROBE, 1, value=60)))
        assert answers(pair, 1)[0].number == 1
        say(pair, write(Message(Kind.ASK, 2)))
        assert "ASK on a silent connection" in str(pair.ended())
    with check_pair(size=1000) as pair:
        say(pair, DATA)
        assert "more than 1000 bytes on a silent connection" in str(pair.ended())


class Slow:
    """A connection on which DATA comes without end; what it waits is counted on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.size = 0
        monkeypatch.setattr(responder, "monotonic", lambda: self.now)

    def recv(self) -> list[bytes]:
        """64 KiB."""
        if self.now >= 101:
            raise ConnectionClosed("over")
        self.size += 43 * len(DATA)
        return [DATA] * 43

    def end_turn(self) -> None:
        """Nothing."""

    def sleep(self, seconds: float) -> None:
        """The clock goes on."""
        self.now += seconds


def test_a_flood_is_taken_at_the_rate_of_a_check_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    slow: Any = Slow(monkeypatch)
    session = CheckSession(slow, Turn(LastAccount("x")), Profile(), sleep=slow.sleep)
    with pytest.raises(ConnectionClosed):
        session._receive()
    assert slow.size * 8 == pytest.approx(RATE_MAX, rel=0.02)


def test_a_check_waits_behind_everybody_else() -> None:
    payer = LastAccount("x")
    payer.charge(0.0, 0, 0, 1000.0)
    assert payer.heavy


class FakePorts:
    """Says what the test wants."""

    name = "no-such-interface"

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.ended = error, 0
        self.slot_error: Exception | None = None
        self.checks = self
        self.full = False

    def begin(self, kind: str, identity: str, address: str) -> FakePorts:
        """As Checks.begin()."""
        assert (kind, identity, address) == (CHECK, "alice", "192.0.2.1")
        if self.error:
            raise self.error
        return self

    def pacer(self, rate: int) -> None:
        """As Check.pacer()."""
        assert self.slot_error
        raise self.slot_error

    def end(self) -> None:
        """As Check.end()."""
        self.ended += 1


def run(ports: Any, settings: ServerSettings, profile: Profile = Profile(rate_up=1)) -> Refused:  # noqa: B008
    client = ClientKey("alice", None, "192.0.2.1")
    with pytest.raises(Refused) as refused:
        Responder(settings).run(environ(), [], client, profile, ports, CHECK)
    return refused.value


def test_a_server_can_have_checks_turned_off() -> None:
    refused = run(FakePorts(), ServerSettings(check=False))
    assert (refused.status, str(refused)) == ("403 Forbidden", "this server has checks turned off (--no-check)")


def test_a_refusal_says_when_to_try_again() -> None:
    busy = Refused("503 Service Unavailable", "another check is running", [("Retry-After", "17")])
    assert run(FakePorts(busy), ServerSettings()) is busy
    refused = run(FakePorts(NoPort("the port process is gone")), ServerSettings())
    assert (refused.status[:3], refused.headers) == ("503", [("Retry-After", "10")])
    ports = FakePorts()
    ports.slot_error = DeviceError("gone")
    assert run(ports, ServerSettings()).status[:3] == "503"
    assert ports.ended == 1


def test_who_has_an_early_101_gets_no_check() -> None:
    asked = environ(HTTP_ETHERWS_FEATURES="v2, check")
    assert responder.wanted(asked) == CHECK
    assert responder.wanted(environ(HTTP_ETHERWS_FEATURES="check=idle")) == IDLE
    assert responder.wanted({**asked, takeover.EARLY_101: True}) is None
    assert responder.wanted(environ()) is None


def test_each_check_is_one_event(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "etherws")
    with check_pair() as pair:
        client = replace(ClientKey("alice"), address="192.0.2.1")
        Responder(ServerSettings())._log(client, CHECK, pair.session, 1.5, ConnectionClosed("closed"))
    record = caplog.records[-1]
    assert record.getMessage().endswith("checked the path for 2 s: received 0 bytes, sent 0: closed")
    assert events.event_of(record) == events.Event(
        events.CHECK,
        {
            "identity": "alice",
            "address": "192.0.2.1",
            "check": "check",
            "seconds": 1.5,
            "sent": 0,
            "received": 0,
            "reason": "closed",
        },
    )
