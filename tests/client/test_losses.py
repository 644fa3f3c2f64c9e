"""What may have cut a connection: right after the 101, or what is idle."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from etherws.client.losses import Losses
from etherws.errors import ConnectionClosed, ProtocolError

RESET = ConnectionClosed("connection lost: Connection reset by peer")


def minutes() -> Callable[[], float]:
    """A clock by which a minute passes between two losses."""
    return count(0.0, 60.0).__next__


def test_a_cut_right_after_the_101() -> None:
    words = Losses(20.0).words(RESET, 0.1, 0.1)
    assert words.startswith(", right after the 101; does a proxy or a firewall between let the upgrade pass")


def test_what_was_said_with_a_close_needs_no_guess() -> None:
    losses = Losses(20.0)
    assert losses.words(ConnectionClosed("closed by the peer, code 1001", 1001), 0.1, 0.1) == ""
    assert losses.words(ProtocolError(1002, "a reserved bit is set"), 60.0, 10.0) == ""
    assert losses.words(ConnectionClosed("nothing heard for 30 s"), 60.0, 30.0) == ""


def test_a_cut_amid_traffic_is_no_cut_of_what_is_idle() -> None:
    assert Losses(20.0).words(RESET, 60.0, 0.3) == ""


def test_the_same_silence_twice_is_a_proxy_that_cuts_what_is_idle() -> None:
    losses = Losses(20.0, minutes())
    # Once it may be chance: a server that was killed.
    assert losses.words(RESET, 300.0, 15.2) == ", 15 s after the last byte from there"
    words = losses.words(RESET, 300.0, 14.8)
    assert words.startswith(", 15 s after the last byte from there, as the last time; does a proxy or a firewall")
    assert "--ping-interval, such as 7s, keeps it open" in words
    assert losses.words(RESET, 300.0, 6.0) == ", 6 s after the last byte from there"
    # Another end between them: the chain is broken.
    assert losses.words(ConnectionClosed("closing"), 300.0, 6.0) == ""
    assert losses.words(RESET, 300.0, 6.0) == ", 6 s after the last byte from there"


def test_without_pings_once_is_enough_and_a_ping_without_an_answer_is_no_idle_time() -> None:
    assert "; does a proxy or a firewall between cut what is idle?" in Losses(0.0).words(RESET, 99.0, 30.0)
    losses = Losses(10.0, minutes())
    assert [losses.words(RESET, 99.0, 15.0) for _ in range(2)] == [", 15 s after the last byte from there"] * 2


def test_connections_that_are_cut_at_the_same_moment_are_one_loss() -> None:
    now = 0.0
    losses = Losses(20.0, lambda: now)
    for _ in range(4):
        assert losses.words(RESET, 300.0, 6.0) == ", 6 s after the last byte from there"
        now += 0.1
    # The next time it is the second one.
    now += 60
    for _ in range(4):
        assert ", as the last time; does a proxy" in losses.words(RESET, 60.0, 6.0)
