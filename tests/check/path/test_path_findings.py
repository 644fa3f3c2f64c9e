"""What figures of a path mean."""

from __future__ import annotations

from dataclasses import replace

import pytest

from etherws.check.findings import Verdict
from etherws.check.path import path_findings
from etherws.check.path.path_findings import Load, duration, jitter, speed
from etherws.tunnel.check_frames import Report

REPORT = Report(limit_up=10**9, limit_down=10**9, congestion="bbr")
LOAD = Load(50e6, [0.02, 0.021], 0.0, 0.0)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0218, "21.8 ms"), (1.23, "1.2 s"), (12.0, "12 s"), (0.0001, "0.1 ms"), (0.0, "0 ms")]
)
def test_times_are_written_for_readers(value: float, text: str) -> None:
    assert duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(94.2e6, "94.2 Mbit/s"), (1e9, "1 Gbit/s"), (64e3, "64 kbit/s"), (10.0, "10 bit/s")]
)
def test_rates_are_written_for_readers(value: float, text: str) -> None:
    assert speed(value) == text


def test_jitter_is_the_mean_step() -> None:
    assert jitter([0.01, 0.03, 0.02]) == pytest.approx(0.015)
    assert jitter([0.01]) == jitter([]) == 0


def test_sizes_that_all_pass() -> None:
    found = path_findings.sizes("up", [60, 9014], [], 1448, 0.03, 0.02)
    assert (found.topic, found.verdict) == ("frames up", Verdict.OK)
    assert found.found == "frames of 60 to 9014 bytes pass whole to the server"
    assert found.data == {"way": "up", "passed_bytes": [60, 9014], "missing_bytes": [], "segment_bytes": 1448}


def test_a_path_mtu_black_hole_has_its_size() -> None:
    found = path_findings.sizes("down", [60, 1300], [1400, 1514], 1448, 0.03, 0.02)
    assert found.verdict is Verdict.FAILED
    assert "up to 1300 bytes pass from the server, and one of 1400 bytes does not" in found.found
    assert "path MTU black hole" in found.found
    assert "fragmentation needed" in found.hint


def test_a_path_without_any_messages() -> None:
    found = path_findings.sizes("up", [], [60, 600], 1448, 0.0, 0.0)
    assert found.verdict is Verdict.FAILED
    assert found.found == "not even a frame of 60 bytes came back"


def test_sizes_that_pass_late() -> None:
    found = path_findings.sizes("up", [60, 9014], [], 1448, 1.5, 0.02)
    assert found.verdict is Verdict.WARNING
    assert "the largest took 1.5 s" in found.found


def test_a_connection_that_ends_at_a_size() -> None:
    found = path_findings.cut_by_size("up", 4096, 1009, "closed by the peer, code 1009")
    assert found.verdict is Verdict.FAILED
    assert found.found == "at a frame of 4096 bytes the connection ended: closed by the peer, code 1009"
    assert found.data == {"way": "up", "cut_at_bytes": 4096, "close_code": 1009}


def test_the_round_trip() -> None:
    found = path_findings.round_trip([0.02, 0.022, 0.021])
    assert (found.verdict, found.found) == (Verdict.OK, "21 ms (shortest 20 ms, jitter 1.5 ms)")
    assert found.data["median_seconds"] == 0.021
    assert path_findings.round_trip([0.02, 0.09, 0.02]).verdict is Verdict.WARNING
    assert path_findings.round_trip([]).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("way", "load", "report", "verdict", "text", "by"),
    [
        ("up", LOAD, REPORT, Verdict.OK, "50 Mbit/s", None),
        ("down", replace(LOAD, rate=0.99e9), REPORT, Verdict.OK, "at least 990 Mbit/s: a check takes no more", "check"),
        ("up", replace(LOAD, rate=19e6), replace(REPORT, limit_up=20 * 10**6, policy_up=True), Verdict.NOTE,
         "19 Mbit/s: the server's policy allows this client 20 Mbit/s", "policy"),
        ("down", replace(LOAD, rate=19e6), replace(REPORT, limit_down=20 * 10**6, policy_down=True), Verdict.NOTE,
         "19 Mbit/s: the server's policy allows this client 20 Mbit/s", "policy"),
        ("up", replace(LOAD, processor=0.97), REPORT, Verdict.NOTE, "50 Mbit/s: the processor", "processor"),
        ("up", replace(LOAD, rate=None), REPORT, Verdict.WARNING, "too little came to tell a rate", None),
        ("up", LOAD, Report(), Verdict.OK, "50 Mbit/s", None),
    ],
)  # fmt: skip
def test_the_rate_and_what_limits_it(
    way: str, load: Load, report: Report, verdict: Verdict, text: str, by: str | None
) -> None:
    found = path_findings.rate(way, load, report)
    assert (found.topic, found.verdict, found.data["limited_by"]) == (f"rate {way}", verdict, by)
    assert found.found.startswith(text)
    assert found.data["bits_per_second"] == load.rate


@pytest.mark.parametrize(
    ("way", "load", "verdict", "words", "hint"),
    [
        ("up", LOAD, Verdict.OK, "20.5 ms under a full upload, 20 ms without", ""),
        ("up", replace(LOAD, round_trips=[0.3], tcp_growth=0.25), Verdict.WARNING, "bufferbloat", "rate-up in the"),
        (
            "up",
            replace(LOAD, round_trips=[0.3], tcp_growth=0.25),
            Verdict.WARNING,
            "bufferbloat",
            "let this machine use BBR",
        ),
        (
            "down",
            replace(LOAD, round_trips=[0.3], tcp_growth=9),
            Verdict.WARNING,
            "bufferbloat",
            "let the server use BBR",
        ),
        (
            "down",
            replace(LOAD, round_trips=[0.1], tcp_growth=0.01),
            Verdict.NOTE,
            "at the ends",
            "the server may be busy",
        ),
        ("up", replace(LOAD, round_trips=[0.1], tcp_growth=0), Verdict.NOTE, "at the ends", "this machine may be busy"),
        ("up", replace(LOAD, round_trips=[0.2], rate=5e8), Verdict.NOTE, "at the ends", "the processors at both ends"),
        ("up", replace(LOAD, round_trips=[]), Verdict.WARNING, "no probe was answered", ""),
    ],
)
def test_the_delay_under_load_and_where_it_is(way: str, load: Load, verdict: Verdict, words: str, hint: str) -> None:
    found = path_findings.delay(way, load, 0.02, "cubic")
    assert (found.topic, found.verdict) == (f"delay {way}", verdict)
    assert words in found.found
    assert hint in found.hint
    assert found.data["way"] == way


def test_with_bbr_nobody_is_told_to_use_it() -> None:
    load = replace(LOAD, round_trips=[0.3], tcp_growth=0.25)
    assert "BBR" not in path_findings.delay("up", load, 0.02, "bbr").hint
    assert "an unknown one" in path_findings.delay("up", load, 0.02, "").hint


def test_tcp_that_loses_much_without_bbr() -> None:
    found = path_findings.tcp("cubic", 0.02, False, REPORT, 0.03, 0.04)
    assert found.verdict is Verdict.WARNING
    assert found.found.startswith("cubic here, bbr at the server; 2.0% of what was sent here was lost")
    assert found.hint.startswith("use BBR here")
    found = path_findings.tcp("cubic", 0.01, False, replace(REPORT, congestion="reno"), 0.02, 0.04)
    assert found.hint.startswith("use BBR at the server")


def test_tcp_that_begins_slowly_after_a_pause() -> None:
    slow = replace(REPORT, congestion="cubic", slow_start=True)
    found = path_findings.tcp("cubic", 0.0, True, slow, 0.0, 0.04)
    assert found.verdict is Verdict.NOTE
    assert found.found.endswith("after each pause TCP begins slowly again here and at the server")
    assert path_findings.tcp("cubic", 0.0, True, slow, 0.0, 0.001).verdict is Verdict.OK
    assert path_findings.tcp("bbr", 0.0, True, replace(REPORT, slow_start=True), 0.0, 0.04).verdict is Verdict.OK


def test_tcp_that_is_all_right() -> None:
    assert path_findings.tcp("bbr", 0.0, False, REPORT, 0.0, 0.04).found == "bbr here, bbr at the server"
    assert path_findings.tcp("bbr", 0.02, False, REPORT, 0.0, 0.04).found.endswith("; 2.00% sent again")
    assert path_findings.tcp("", 0.0, True, Report(), 0.0, 0.04).found == "unknown here, unknown at the server"


@pytest.mark.parametrize(
    ("theirs", "ours", "verdict", "words", "hint"),
    [
        (1500, None, Verdict.OK, "1500 bytes at the server", ""),
        (9000, 9000, Verdict.OK, "9000 bytes at the server, and here", ""),
        (
            9000,
            None,
            Verdict.NOTE,
            "9000 bytes at the server; an interface here gets 1500",
            "give the client --mtu 9000",
        ),
        (1400, 9000, Verdict.WARNING, "9000 bytes here, 1400 at the server", "give both the lower one: --mtu 1400"),
    ],
)
def test_mtus_are_compared(theirs: int, ours: int | None, verdict: Verdict, words: str, hint: str) -> None:
    found = path_findings.mtus(theirs, ours)
    assert (found.topic, found.verdict, found.data) == ("MTU", verdict, {"server_bytes": theirs, "bytes": ours})
    assert found.found.startswith(words)
    assert found.hint.startswith(hint)
