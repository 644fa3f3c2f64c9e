"""The session that measures, against the server's end in this process; and a server that breaks the rules."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import pytest
from gevent import socket

from etherws.access.policy import Profile
from etherws.check.findings import Finding, Verdict
from etherws.check.path import measure as module
from etherws.check.path.measure import SIZES, measure
from etherws.check.path.measuring import Measuring
from etherws.errors import ConnectionClosed, ProtocolError
from etherws.server.checks import SECONDS_MAX
from etherws.tunnel.check_frames import SIZE_MAX, UNANSWERED_MAX, Kind, Message, Report, read, write
from etherws.tunnel.connection import Connection
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.wire import Version1, Version2
from tests.lab.checks import check_pair
from tests.lab.hosts import PATIENCE


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill each direction for a moment only."""
    monkeypatch.setattr(module, "LOAD_SECONDS", 0.15)
    monkeypatch.setattr(module, "START_SECONDS", 0.05)
    monkeypatch.setattr(module, "LOAD_PAUSE", 0.01)
    monkeypatch.setattr(module, "PROBE_PAUSE", 0.0)


def test_a_whole_measurement_fits_into_the_time_of_a_check() -> None:
    # The constants, not what `short` has made of them.
    assert SECONDS_MAX >= 2 * 4.0 + 3.0 + 2 * (3.0 + 6.0)


@pytest.mark.parametrize("version", [Version1, Version2])
def test_all_is_measured_each_way(version: type[Version1 | Version2]) -> None:
    found: dict[str, Finding] = {}
    # On a machine that stands still for a moment nothing comes in that moment, and nothing can be told of it.
    while None in (found[topic].data.get(name) if found else None for topic, name in FIGURES):
        with check_pair(version, Profile(rate_down=2 * 10**6)) as pair:
            found = {finding.topic: finding for finding in measure(pair.connection)}
    assert list(found) == [
        *("frames up", "frames down", "round trip", "rate up", "delay up", "rate down", "delay down", "TCP"),
    ]
    for way in ("up", "down"):
        assert found[f"frames {way}"].data["passed_bytes"] == list(SIZES)
        assert found[f"rate {way}"].data["bits_per_second"] > 0
        assert found[f"delay {way}"].data["probes"] > 0
    assert found["rate down"].data["limit_bits_per_second"] == 2 * 10**6
    assert found["round trip"].data["probes"] == module.PROBES
    assert all(finding.verdict is not Verdict.FAILED for finding in found.values())


#: What can be missing: topics, and names of values.
FIGURES = [
    *((f"rate {way}", "bits_per_second") for way in ("up", "down")),
    *((f"delay {way}", "probes") for way in ("up", "down")),
]


@pytest.mark.parametrize(
    ("report", "ceiling"),
    [
        (Report(limit_up=10**9), 950_000_000),
        (Report(limit_up=10**6, policy_up=True), None),
        (Report(), None),
        (None, None),
    ],
)
def test_what_only_a_check_is_limited_by_is_not_reached(report: Report | None, ceiling: int | None) -> None:
    assert module._ceiling(Message(Kind.REPORT, report=report)) == ceiling
    assert module._ceiling(None) is None


class Server:
    """The other end, which answers probes as `answer` says."""

    def __init__(self, answer: Callable[[Connection, Message], None]) -> None:
        near, far = socket.socketpair()
        self.connection = Connection(PlainStream(near), server=False, wire=Version2())
        self._far = Connection(PlainStream(far), server=True, wire=Version2())
        self._answer = answer
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        try:
            while True:
                for packet in list(map(bytes, self._far.recv())):
                    self._answer(self._far, read(packet))
        except ConnectionClosed:
            pass
        self._far.close(1000)

    def findings(self) -> list[Finding]:
        """What is measured."""
        try:
            with gevent.Timeout(PATIENCE):
                return list(measure(self.connection))
        finally:
            self.connection.close(1000)
            self._greenlet.join(PATIENCE)


def _end(connection: Connection, code: int) -> ConnectionClosed:
    connection.close(code, "the end")
    return ConnectionClosed("ended here")


def answer(connection: Connection, message: Message) -> None:
    """As a server that answers at once."""
    packet = write(Message(Kind.ANSWER, message.number, message.sent, 1, 2, message.size), message.value)
    connection.send_queued([packet])
    connection.flush()


def test_the_first_size_that_does_not_pass_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SIZES_SECONDS", 0.05)
    lost: list[int] = []

    def black_hole(connection: Connection, message: Message) -> None:
        # Behind a segment that is lost again and again nothing comes.
        if message.size > 1300 or lost:
            lost.append(message.size)
        else:
            answer(connection, message)

    found = Server(black_hole).findings()
    assert [(finding.topic, finding.verdict) for finding in found] == [("frames up", Verdict.FAILED)]
    assert found[0].data["passed_bytes"] == [60, 600, 1200, 1300]
    assert found[0].data["missing_bytes"][0] == 1400


def test_a_limit_of_messages_on_the_way_is_named() -> None:
    def proxy(connection: Connection, message: Message) -> None:
        if message.size > 4000:
            raise _end(connection, 1009)
        answer(connection, message)

    found = Server(proxy).findings()
    assert [(finding.topic, finding.verdict) for finding in found] == [("frames up", Verdict.FAILED)]
    assert found[0].data == {"way": "up", "cut_at_bytes": 4096, "close_code": 1009}


def test_a_server_that_goes_quiet_after_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBES_SECONDS", 0.05)
    seen: list[int] = []

    def quiet(connection: Connection, message: Message) -> None:
        seen.append(message.number)
        if len(seen) <= 2 * len(SIZES):
            answer(connection, message)

    found = Server(quiet).findings()
    assert [(finding.topic, finding.verdict) for finding in found][2:] == [("round trip", Verdict.FAILED)]


def test_a_server_that_reports_nothing_costs_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.05)

    def probes_only(connection: Connection, message: Message) -> None:
        if message.kind is Kind.PROBE:
            answer(connection, message)

    found = {finding.topic: finding for finding in Server(probes_only).findings()}
    assert found["rate up"].data["bits_per_second"] is None
    assert found["rate down"].data["bits_per_second"] is None
    assert found["TCP"].data["server_congestion"] == ""


@pytest.mark.parametrize(
    "packet",
    [
        write(Message(Kind.ANSWER, 12345)),
        write(Message(Kind.REPORT, 12345, report=Report())),
        write(Message(Kind.PROBE)),
        bytes(80),
    ],
)
def test_what_nobody_asked_for_ends_the_session(packet: bytes) -> None:
    def hostile(connection: Connection, message: Message) -> None:
        connection.send_queued([packet])
        connection.flush()

    with pytest.raises(ProtocolError):
        Server(hostile).findings()


def test_a_connection_that_ends_between_the_steps_is_told() -> None:
    seen: list[int] = []

    def leaving(connection: Connection, message: Message) -> None:
        seen.append(message.number)
        if len(seen) > 2 * len(SIZES) + 3:
            raise _end(connection, 1001)
        answer(connection, message)

    with pytest.raises(ConnectionClosed, match="code 1001"):
        Server(leaving).findings()


def test_probes_that_nobody_answers_are_limited() -> None:
    server = Server(lambda connection, message: None)
    with Measuring(server.connection) as measuring:
        for _ in range(2 * UNANSWERED_MAX):
            measuring.probe(SIZE_MAX)
        assert measuring.unanswered == UNANSWERED_MAX // 2
        assert not measuring.wait(lambda: measuring.samples, 0.0)
    server.connection.close(1000)
