"""The clocks of both ends, by the header Date."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.check.findings import Verdict
from etherws.check.path.clock import difference, judged, span
from tests.lab.checking import answer

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize(
    ("headers", "ahead"),
    [
        (["Date: Fri, 02 Jan 2026 03:04:05 GMT"], 0.0),
        (["Date: Fri, 02 Jan 2026 04:04:05 GMT"], 3600.0),
        (["Date: Fri, 02 Jan 2026 03:03:05 GMT", "Age: 60"], 0.0),
        (["Date: Fri, 02 Jan 2026 03:04:05 GMT", "Age: -5"], 0.0),
        (["Date: Fri, 02 Jan 2026 03:04:05 -0000"], 0.0),
        (["Date: now"], None),
        (["Date: Fri, 99 Jan 2026 03:04:05 GMT"], None),
        ([], None),
    ],
)
def test_how_far_the_server_is_ahead(headers: list[str], ahead: float | None) -> None:
    assert difference(answer(*headers), NOW) == ahead


@given(st.text(max_size=60))
def test_whatever_the_header_says(value: str) -> None:
    difference(answer(f"Date: {value}", "Age: 9"), NOW)


@pytest.mark.parametrize(
    ("ahead", "verdict", "words"),
    [
        (2.0, Verdict.OK, "agree"),
        (30.0, Verdict.NOTE, "30 seconds behind"),
        (-7200.0, Verdict.WARNING, "2 hours ahead of"),
    ],
)
def test_what_a_difference_means(ahead: float, verdict: Verdict, words: str) -> None:
    finding = judged(ahead)
    assert finding.verdict is verdict
    assert words in finding.found
    assert bool(finding.hint) is (verdict is not Verdict.OK)


def test_spans() -> None:
    assert [span(each) for each in (9, 119, 600, 7200, 900_000)] == [
        "9 seconds",
        "119 seconds",
        "10 minutes",
        "2 hours",
        "10 days",
    ]
