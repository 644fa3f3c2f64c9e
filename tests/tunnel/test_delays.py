"""Round trips and waits, in numbers."""

from __future__ import annotations

from etherws.counters import Totals
from etherws.tunnel.delays import Delays


def test_nothing_is_measured_at_first() -> None:
    delays = Delays()
    assert delays.round_trip is None
    assert delays.loaded_round_trip is None
    assert delays.longest_wait() == 0
    assert delays.totals.round_trip.values()["sum"] == 0


def test_a_round_trip_is_that_of_a_loaded_path_if_packets_waited_meanwhile() -> None:
    totals = Totals()
    delays = Delays(totals)
    delays.waited(0.004, 100.0)
    assert delays.answered(100.5, 100.51) == delays.round_trip
    assert round(delays.round_trip or 0, 6) == 0.01
    assert delays.loaded_round_trip is None
    delays.waited(0.004, 200.1)
    delays.answered(200.0, 200.3)
    assert round(delays.round_trip, 6) == round(delays.loaded_round_trip or 0, 6) == 0.3
    # This one is not of a loaded path, and the last that was stays.
    delays.answered(300.0, 300.01)
    assert round(delays.round_trip, 6) == 0.01
    assert round(delays.loaded_round_trip or 0, 6) == 0.3
    assert sum(totals.round_trip.counts) == 3
    assert sum(totals.loaded_round_trip.counts) == 1


def test_the_longest_wait_is_told_once() -> None:
    delays = Delays()
    for seconds, now in ((0.001, 1.0), (0.03, 2.0), (0.002, 3.0)):
        delays.waited(seconds, now)
    assert (delays.last_wait, delays.waited_at) == (0.002, 3.0)
    assert sum(delays.totals.queue_delay.counts) == 3
    assert delays.longest_wait() == 0.03
    assert delays.longest_wait() == 0
