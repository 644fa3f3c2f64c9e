"""A session that carries no LAN's frames: how fast is the path, how long is the round trip, and what passes?

Says what is sent when, for about ten seconds, and never longer than a check may take. Read next: measuring.py, which
sends and notes; path_findings.py, which judges.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from time import monotonic, process_time

import gevent

from etherws.check.findings import Finding, Verdict
from etherws.check.path import path_findings
from etherws.check.path.measuring import Measuring
from etherws.check.path.path_findings import Load
from etherws.errors import ConnectionClosed
from etherws.tunnel.check_frames import SIZE_FULL, SIZE_MAX, SIZE_MIN, Message, Report
from etherws.tunnel.connection import Connection
from etherws.tunnel.tcp_facts import TcpFacts, slow_start_after_idle

#: Bytes of the frames that are tried: between them are the MTUs of tunnels and mobile networks; a full frame, one with
#: a VLAN tag, and jumbo frames.
SIZES = (SIZE_MIN, 600, 1200, 1300, 1400, SIZE_FULL, SIZE_FULL + 4, 4096, SIZE_MAX)

#: Seconds in which a frame of each size must come: TCP sends again twice by then, on a long path.
SIZES_SECONDS = 4.0

#: Probes of the usual round trip, their distance and the longest time for all, in seconds.
PROBES, PROBE_PAUSE, PROBES_SECONDS = 20, 0.01, 3.0

#: Seconds for which a direction is filled; of these the first are not counted, since TCP begins slowly.
LOAD_SECONDS, START_SECONDS = 3.0, 1.0

#: The part of the rate at which the server takes a check's bytes that is sent to it.
BELOW = 0.95

#: Seconds between two probes under load, and for the last report: what is under way waits in a queue before it.
LOAD_PAUSE, REPORT_SECONDS = 0.05, 6.0


def measure(connection: Connection) -> Iterator[Finding]:
    """What was found on `connection`, on which the server has agreed to the feature "check". The caller closes it.

    Raises ConnectionClosed or ProtocolError if it ends early."""
    with Measuring(connection) as measuring:
        for way in ("up", "down"):
            finding = _sizes(measuring, connection, way)
            yield finding
            if finding.verdict is Verdict.FAILED:
                return
        idle = _idle(measuring)
        yield path_findings.round_trip(idle)
        if not idle:
            return
        usual = median(idle)
        before = _report(measuring, measuring.ask())
        facts = connection.tcp_facts()
        up, report = _up(measuring, connection, facts, _ceiling(before))
        yield path_findings.rate("up", up, report)
        yield path_findings.delay("up", up, usual, facts.congestion)
        down, report = _down(measuring, before)
        yield path_findings.rate("down", down, report)
        yield path_findings.delay("down", down, usual, report.congestion)
        yield path_findings.tcp(
            connection.tcp_facts().congestion, up.loss, slow_start_after_idle(), report, down.loss, usual
        )


def _sizes(measuring: Measuring, connection: Connection, way: str) -> Finding:
    """Send frames of all sizes one way, small ones back."""
    measuring.samples.clear()
    for size in SIZES:
        measuring.probe(size, SIZE_MIN) if way == "up" else measuring.probe(SIZE_MIN, size)
    try:
        measuring.wait(lambda: not measuring.unanswered, SIZES_SECONDS)
    except ConnectionClosed as exc:
        passed = {sample.probe if way == "up" else sample.answer for sample in measuring.samples}
        return path_findings.cut_by_size(way, min(set(SIZES) - passed, default=SIZE_MAX), exc.code, str(exc))
    samples = measuring.samples
    passed_sizes = sorted(sample.probe if way == "up" else sample.answer for sample in samples)
    missing = [size for size in SIZES if size not in passed_sizes]
    slowest, usual = (pick([sample.round_trip for sample in samples] or [0.0]) for pick in (max, min))
    return path_findings.sizes(way, passed_sizes, missing, connection.tcp_facts().segment, slowest, usual)


def _idle(measuring: Measuring) -> list[float]:
    """Round trips, one probe after the other."""
    measuring.samples.clear()
    until = monotonic() + PROBES_SECONDS
    for _ in range(PROBES):
        measuring.probe()
        if not measuring.wait(lambda: not measuring.unanswered, until - monotonic()):
            break
        gevent.sleep(PROBE_PAUSE)
    return [sample.round_trip for sample in measuring.samples]


def _ceiling(message: Message | None) -> int | None:
    """Bits per second to send at most. A tunnel has no such limit, so the delay that it makes is to be none of the
    path's; a limit of the policy is the tunnel's as well."""
    report = message.report if message else None
    return int(BELOW * report.limit_up) or None if report and not report.policy_up else None


def _up(measuring: Measuring, connection: Connection, before: TcpFacts, ceiling: int | None) -> tuple[Load, Report]:
    """Fill the way to the server."""
    began, computed = monotonic(), process_time()
    over = measuring.send_bulk(LOAD_SECONDS, ceiling)
    _probe_for(measuring, START_SECONDS)
    measuring.samples.clear()
    measuring.ask()
    # A path that takes nothing more ends it late, or never.
    while not over() and monotonic() < began + LOAD_SECONDS + REPORT_SECONDS:
        _probe_for(measuring, LOAD_PAUSE)
    processor = (process_time() - computed) / (monotonic() - began)
    message = _report(measuring, measuring.ask())
    after = connection.tcp_facts()
    loss = _part(after.retransmitted - before.retransmitted, after.segments - before.segments)
    growth = _growth([sample.ours for sample in measuring.samples], after.shortest)
    load = Load(_rate(message), [sample.round_trip for sample in measuring.samples], growth, loss, processor)
    return load, (message.report if message else None) or Report()


def _down(measuring: Measuring, before: Message | None) -> tuple[Load, Report]:
    """Fill the way from the server."""
    began, computed = monotonic(), process_time()
    number = measuring.receive_bulk(LOAD_SECONDS)
    _probe_for(measuring, START_SECONDS)
    measuring.samples.clear()
    measuring.count.taken()
    until = began + LOAD_SECONDS + REPORT_SECONDS
    while number not in measuring.reports and monotonic() < until:
        _probe_for(measuring, LOAD_PAUSE)
    processor = (process_time() - computed) / (monotonic() - began)
    message = measuring.reports.get(number)
    size, first, last = measuring.count.taken()
    report = (message.report if message else None) or Report()
    started = (before.report if before else None) or Report()
    loss = _part(report.retransmitted - started.retransmitted, report.segments - started.segments)
    growth = _growth([sample.theirs for sample in measuring.samples], report.shortest / 1e6)
    round_trips = [sample.round_trip for sample in measuring.samples]
    return Load(_per_second(size, first, last), round_trips, growth, loss, processor), report


def _probe_for(measuring: Measuring, seconds: float) -> None:
    """Send a probe every LOAD_PAUSE for so long."""
    until = monotonic() + seconds
    while (left := until - monotonic()) > 0:
        measuring.probe()
        measuring.wait(lambda: False, min(LOAD_PAUSE, left))


def _report(measuring: Measuring, number: int) -> Message | None:
    """The report of this number; None if it does not come."""
    measuring.wait(lambda: number in measuring.reports, REPORT_SECONDS)
    return measuring.reports.get(number)


def _rate(message: Message | None) -> float | None:
    return _per_second(message.value, message.received, message.answered) if message else None


def _per_second(size: int, first: int, last: int) -> float | None:
    """Bits per second, from bytes and nanoseconds; None if that is too little to tell."""
    return size * 8e9 / (last - first) if size and last > first else None


def _growth(round_trips: list[float], shortest: float) -> float:
    """By how much TCP's round trip has grown, in seconds."""
    return max(0.0, median(round_trips) - shortest) if round_trips else 0.0


def _part(some: int, all_of_them: int) -> float:
    return max(0, some) / all_of_them if all_of_them > 0 else 0.0
