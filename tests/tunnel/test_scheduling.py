"""The length of a turn."""

from __future__ import annotations

from etherws.tunnel.scheduling import TURN_SECONDS


def test_a_turn_is_longer_than_a_system_call_and_shorter_than_a_ping_may_wait() -> None:
    assert 0.0001 < TURN_SECONDS < 0.005
