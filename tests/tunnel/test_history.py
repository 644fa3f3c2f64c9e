"""The ring of the last ten minutes."""

from __future__ import annotations

import sys

from etherws.tunnel.history import COLUMNS, ROWS, STEP, History

#: What the history of a session without drops may need, in bytes.
MEMORY_MAX = 2200


def test_a_history_without_rows_is_empty() -> None:
    values = History().values()
    assert values == {"step": STEP, "end": 0.0, **{key: [] for key in [*COLUMNS, "drops"]}}


def test_rows_come_in_the_order_of_time_and_what_is_unknown_is_none() -> None:
    history = History()
    history.add(1e9, 1000.0, 250.5, None, 0.0, 0)
    history.add(1e9 + 5, 2e9, 1 / 3, 0.012, 0.005, 7)
    assert history.values() == {
        "step": STEP,
        "end": 1e9 + 5,
        "sent": [1000.0, 2e9],
        "received": [250.5, 0.333333],
        "round_trip": [None, 0.012],
        "queue_delay": [0.0, 0.005],
        "drops": [0, 7],
    }


def test_the_oldest_rows_go_and_the_memory_is_bounded() -> None:
    history = History()
    for number in range(ROWS):
        history.add(number, number, 0, 0, 0, 0)
    assert history.values()["sent"] == list(range(ROWS))
    assert sys.getsizeof(history._rows) + sys.getsizeof(history._drops) < MEMORY_MAX
    for number in range(ROWS, 2 * ROWS + 7):
        history.add(number, number, 0, 0, 0, number)
    values = history.values()
    expected = list(range(ROWS + 7, 2 * ROWS + 7))
    assert values["sent"] == values["drops"] == expected
    assert {len(values[name]) for name in COLUMNS} == {ROWS}
    assert len(history._drops) == ROWS
