"""The last ten minutes of all, made of totals."""

from __future__ import annotations

from typing import Any

import pytest

from etherws.counters import Totals, Values
from etherws.observe.history import COLUMNS, GAP_MAX, SAMPLES, STEP, History, quantile


def totals(sent: int = 0, trips: tuple[float, ...] = (), **changes: Any) -> Values:
    """What a process has counted."""
    found = Totals(**changes)
    found.sent.bytes, found.received.bytes = sent, sent // 2
    for trip in trips:
        found.round_trip.add(trip)
    return found.values()


def test_a_sample_has_what_came_in_between() -> None:
    history = History()
    assert history.values() == {"step": STEP, "end": 0.0, **{name: [] for name in COLUMNS}, "reasons": {}}
    history.add(100.0, totals(1000, (0.3,), joins=7))
    assert history.values()["sent"] == []
    later = totals(6000, (0.3, 0.004, 0.004), joins=9, leaves=1)
    later["drops"] = {"queue late": 4}
    history.add(105.0, later)
    values = history.values()
    assert values["end"] == 105.0
    assert (values["sent"], values["received"]) == ([8000], [4000])
    assert values["sessions"] == [8]
    assert (values["drops"], values["reasons"]) == ([4], {"queue late": 4})
    assert values["round_trip"] == [pytest.approx(0.00375)]
    assert values["round_trip_95"] == [pytest.approx(0.004875)]
    assert values["queue_delay"] == values["queue_delay_95"] == [None]


def test_reasons_are_of_all_samples_and_totals_that_went_down_count_as_none() -> None:
    history = History()
    for now, drops, sent in ((0, {"a": 1}, 9000), (5, {"a": 3}, 9000), (10, {"a": 4, "b": 2}, 0), (15, {"b": 1}, 0)):
        history.add(now, totals(sent) | {"drops": drops})
    assert history.values()["reasons"] == {"a": 3, "b": 2}
    assert history.values()["drops"] == [2, 3, 0]
    assert history.values()["sent"] == [0, 0, 0]


@pytest.mark.parametrize("later", [99.0, 100.0, 100.0 + GAP_MAX + 1])
def test_a_jump_of_the_clock_leaves_a_gap(later: float) -> None:
    history = History()
    history.add(100.0, totals(0))
    history.add(later, totals(5000))
    history.add(later + 5, totals(10_000))
    assert history.values()["sent"] == [None, 8000]


def test_it_is_ten_minutes() -> None:
    history = History()
    for number in range(2 * SAMPLES):
        history.add(1000 + STEP * number, totals(number * number))
    sent = history.values()["sent"]
    assert len(sent) == SAMPLES == 600 / STEP
    assert sent[0] < sent[-1]


@pytest.mark.parametrize(
    ("counts", "part", "value"),
    [
        ([0, 0, 0], 0.5, None),
        ([1, 0, 0], 0.5, 0.5),
        ([10, 10, 0], 0.5, 1.0),
        ([10, 10, 0], 0.75, 2.0),
        ([0, 4, 0], 0.25, 1.5),
        ([1, 0, 9], 0.95, 3.0),
    ],
)
def test_a_quantile_lies_between_the_bounds(counts: list[int], part: float, value: float | None) -> None:
    assert quantile([1.0, 3.0], counts, part) == value
