"""Keeping a client to its rate: the arithmetic, and what the kernel is told about it."""

from __future__ import annotations

import contextlib
import socket

import pytest

from etherws.tunnel.congestion import RECEIVE_WINDOW_MIN, SO_RCVBUFFORCE, CongestionControl
from etherws.tunnel.rate_limit import CREDIT, Pacer
from tests.lab.hosts import Host


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


@pytest.mark.parametrize(("rate", "window"), [(1_000_000, RECEIVE_WINDOW_MIN), (80_000_000, 100_000)])
def test_little_more_than_the_path_holds_waits_here(host: Host, rate: int, window: int) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(host.namespace.inside())
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        try:
            listening.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 16)
        except PermissionError:
            pytest.skip("this kernel has SO_RCVBUFFORCE for the machine's root only")
        stack.enter_context(socket.create_connection(listening.getsockname()))
        sock = stack.enter_context(listening.accept()[0])
        CongestionControl(sock).limit_receive_window(rate)
        # The kernel doubles it (socket(7)). A loopback's round trip is some microseconds.
        assert window <= sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) / 2 < window + rate / 8 * 0.005


def test_where_the_kernel_does_not_know_the_path_nothing_is_wrong() -> None:
    one, other = socket.socketpair()
    with one, other:
        CongestionControl(one).limit_receive_window(1_000_000)
