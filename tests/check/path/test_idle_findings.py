"""Which silences are tried, and what they say of a path."""

from __future__ import annotations

import pytest

from etherws.check.findings import Verdict
from etherws.check.path.idle_findings import PINGS, SILENCES, Lived, idle_finding, silences
from etherws.server.checks import IDLE_OWNER_MAX, IDLE_SECONDS_MAX
from etherws.settings import DeviceSettings


def test_the_server_has_room_for_all_silences() -> None:
    assert silences(120) == [20, 35, 55, 65, 105, 120]
    assert silences(20) == [20]
    assert silences(5) == [5]
    assert len(silences(600)) <= IDLE_OWNER_MAX
    assert max(SILENCES) < IDLE_SECONDS_MAX
    assert DeviceSettings().ping_interval == PINGS


def test_a_connection_that_lives_is_all_right() -> None:
    found = idle_finding([Lived(20, True), Lived(120, True), Lived(55, True)])
    assert (found.verdict, found.found) == (Verdict.OK, "a silent connection lives for at least 120 s")
    assert found.data == {"alive_seconds": 120, "cut_seconds": None, "closed": False}


@pytest.mark.parametrize(
    ("seconds", "verdict", "hint", "whose"),
    [
        (60.03, Verdict.NOTE, "set no --ping-interval above 25s", "nginx (proxy_read_timeout), AWS's application"),
        (100.4, Verdict.NOTE, "set no --ping-interval above 25s", "Cloudflare"),
        (30.1, Verdict.NOTE, "set no --ping-interval above 15s", "Google Cloud"),
        (15.0, Verdict.WARNING, "set --ping-interval 7s at both ends; a proxy, a firewall", ""),
        (0.5, Verdict.WARNING, "set --ping-interval 1s at both ends", ""),
    ],
)
def test_an_end_tells_the_time_and_whose_limit_that_may_be(
    seconds: float, verdict: Verdict, hint: str, whose: str
) -> None:
    results = [Lived(20, True)] if seconds > 20 else []
    found = idle_finding(
        [*results, Lived(105, False, seconds, "closed by the peer"), Lived(120, False, seconds + 1, "x")]
    )
    assert found.verdict is verdict
    assert found.found == f"cut after about {seconds:.0f} s of silence (closed by the peer)"
    assert hint in found.hint
    assert whose in found.hint
    assert found.data == {
        "alive_seconds": 20 if results else 0,
        "cut_seconds": round(seconds, 1),
        "closed": True,
    }


def test_who_is_cut_without_a_word_is_found_between_two_silences() -> None:
    found = idle_finding([Lived(20, True), Lived(35, True), Lived(55, False), Lived(65, False)])
    assert (found.verdict, found.found) == (Verdict.NOTE, "cut without a word between 35 and 55 s of silence")
    assert "above 17s" in found.hint
    assert "HAProxy" in found.hint
    assert found.data == {"alive_seconds": 35, "cut_seconds": 55, "closed": False}
    found = idle_finding([Lived(20, False)])
    assert (found.verdict, found.found) == (Verdict.WARNING, "cut without a word between 0 and 20 s of silence")
    assert found.hint.startswith("set --ping-interval 5s at both ends")
