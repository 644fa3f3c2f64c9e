"""Moments of one clock by another."""

from __future__ import annotations

from etherws.server.wall_clock import SET_BY, WallClock


class Clocks:
    """Two clocks that a test sets."""

    monotonic, epoch = 100.0, 1_000_000.0


def test_a_moment_is_the_same_at_each_look_until_the_clock_is_set() -> None:
    now = Clocks()
    clock = WallClock(lambda: now.monotonic, lambda: now.epoch)
    assert clock.at(90.0) == 999_990.0
    # The process had to wait between its readings of the two clocks.
    now.monotonic, now.epoch = 150.0, 1_000_050.3
    assert clock.at(90.0) == 999_990.0
    # Somebody sets it, forwards and back.
    now.epoch += 3600.0
    assert abs(clock.at(90.0) - 1_003_590.3) < 1e-6
    now.epoch -= 3600.0 + SET_BY / 2
    assert abs(clock.at(150.0) - 1_000_049.8) < 1e-6
