"""The ring of the last ten minutes."""

from __future__ import annotations

import sys

from etherws.tunnel.history import COLUMNS, INTERVAL, ROWS, History

#: What a session without frames may need for its history, in bytes.
MEMORY_MAX = 2300


def test_a_history_without_rows_is_empty() -> None:
    assert History().values() == {"interval": INTERVAL, "sent": [], "received": [], "round_trip": [], "queue_delay": []}


def test_rows_come_in_the_order_of_time_and_what_is_unknown_is_none() -> None:
    history = History()
    history.add(1000.0, 250.5, None, 0.0)
    history.add(2e9, 1 / 3, 0.012, 0.005)
    assert history.values() == {
        "interval": INTERVAL,
        "sent": [1000.0, 2e9],
        "received": [250.5, 0.333333],
        "round_trip": [None, 0.012],
        "queue_delay": [0.0, 0.005],
    }


def test_the_oldest_rows_go_and_the_memory_is_bounded() -> None:
    history = History()
    for number in range(2 * ROWS + 7):
        history.add(number, 0, 0, 0)
    values = history.values()
    assert values["sent"] == [float(number) for number in range(ROWS + 7, 2 * ROWS + 7)]
    assert {len(values[name]) for name in COLUMNS} == {ROWS}
    assert sys.getsizeof(history._rows) < MEMORY_MAX
