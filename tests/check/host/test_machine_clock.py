"""The clock: kept right, left to itself, or wrong."""

from __future__ import annotations

import time

import pytest

from etherws.check.findings import Verdict
from etherws.check.host.machine_clock import DAY, TIME_ERROR, clock

NOW = 1_750_000_000.0


@pytest.mark.parametrize(
    ("now", "state", "verdict", "words"),
    [
        (NOW, 0, Verdict.OK, "is kept right by a time server: 2025-06-15 15:06:40+00:00"),
        (NOW, TIME_ERROR, Verdict.WARNING, "no time server keeps it right"),
        (NOW, None, Verdict.SKIPPED, "cannot be asked"),
        (NOW - 2 * DAY, 0, Verdict.FAILED, "before this etherws was installed"),
        (0.0, TIME_ERROR, Verdict.FAILED, "1970-01-01"),
        (-5.0, None, Verdict.FAILED, "1970-01-01"),
    ],
)
def test_a_clock(now: float, state: int | None, verdict: Verdict, words: str) -> None:
    (found,) = clock(lambda: now, lambda: state, built=NOW)
    assert found.verdict is verdict
    assert words in found.found


def test_this_machines_clock() -> None:
    (found,) = clock()
    assert abs(found.data["time"] - time.time()) < 1000
