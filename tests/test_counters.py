"""Traffic, histograms, and totals that are added up."""

from __future__ import annotations

import json

import pytest

from etherws.counters import Histogram, Totals, Traffic


def test_traffic_is_added() -> None:
    traffic = Traffic(1, 2, 3)
    traffic.add(Traffic(10, 20, 30))
    assert traffic == Traffic(11, 22, 33)
    assert traffic.values() == {"bytes": 11, "frames": 22, "super_frames": 33}


def test_a_value_counts_below_the_first_bound_that_is_not_less() -> None:
    histogram = Histogram([1.0, 2.0])
    for value in (0.0, 1.0, 1.5, 2.0, 3.0):
        histogram.add(value)
    histogram.merge([1, 0, 5], 20.0)
    assert histogram.values() == {"bounds": [1.0, 2.0], "counts": [3, 2, 6], "sum": 27.5}


def test_totals_of_processes_are_added_up() -> None:
    one, other = Totals(joins=1), Totals(joins=2, leaves=1)
    for totals in (one, other):
        totals.sent.add(Traffic(1, 2, 3))
        totals.received.add(Traffic(4, 5, 6))
        totals.drops["queue late"] += 1
        totals.round_trip.add(0.001)
        totals.loaded_round_trip.add(0.3)
        totals.queue_delay.add(9.0)
    other.drops["runt"] += 2
    one.merge(json.loads(json.dumps(other.values())))
    assert (one.joins, one.leaves) == (3, 1)
    assert (one.sent, one.received) == (Traffic(2, 4, 6), Traffic(8, 10, 12))
    assert one.drops == {"queue late": 2, "runt": 2}
    for histogram in (one.round_trip, one.loaded_round_trip, one.queue_delay):
        assert sum(histogram.counts) == 2
    assert one.queue_delay.counts[-1] == 2


@pytest.mark.parametrize("key", Totals().values())
def test_malformed_totals_are_refused(key: str) -> None:
    values = Totals().values()
    for wrong in ({**values, key: None}, {name: value for name, value in values.items() if name != key}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Totals().merge(wrong)
    with pytest.raises((KeyError, TypeError, ValueError)):
        Totals().merge({**values, "round_trip": {"counts": [1], "sum": 1.0}})
