"""Keeping a peer to its rate: the arithmetic."""

from __future__ import annotations

import pytest

from etherws.tunnel.rate_limit import CREDIT, Pacer


def test_as_much_as_the_rate_allows_passes_whatever_the_sizes() -> None:
    pacer, now, sent = Pacer(8_000_000), 100.0, 0
    for size in (1514, 60, 65_000, 200_000, 1, 1514) * 50:
        sent += size
        now += pacer.wait(size, now)
    # A million bytes per second, and what the start was credited.
    assert now - 100 == pytest.approx(sent / 1e6 - CREDIT)


def test_what_was_not_used_is_lost_but_for_a_credit() -> None:
    pacer = Pacer(8_000_000)
    assert pacer.wait(int(1e6 * CREDIT), 100.0) == 0
    assert pacer.wait(1000, 100.0) == pytest.approx(0.001)
    assert pacer.wait(int(1e6 * CREDIT), 200.0) == pytest.approx(0, abs=1e-9)
    assert pacer.wait(1000, 200.0) == pytest.approx(0.001)


def test_a_wait_that_was_too_long_is_made_up_for() -> None:
    pacer, now, sent = Pacer(8_000_000), 100.0, 0
    for _ in range(100):
        sent += 10_000
        now += pacer.wait(10_000, now) + 0.001
    assert now - 100 <= sent / 1e6 + 0.001
