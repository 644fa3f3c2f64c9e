"""What is set on the outer TCP connection, and when: on real TCP, and on a socket that says what the test wants."""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import threading
from typing import Any

import pytest
from gevent.socket import socket as GeventSocket

from etherws.access.certificates import client_context
from etherws.errors import SettingsError
from etherws.settings import Trust
from etherws.tunnel import congestion as module
from etherws.tunnel.congestion import (
    AUTO,
    BLOCKED,
    FREE,
    FULL,
    RECEIVE_WINDOW_MIN,
    SO_RCVBUFFORCE,
    CongestionControl,
    SocketState,
    check,
)
from etherws.tunnel.path_queue import UNLIMITED
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.tls import TlsStream
from etherws.tunnel.wire import BATCH_BYTES
from tests.lab.hosts import PATIENCE, Host, until


def tcp_pair(host: Host) -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over the loopback of a machine."""
    with host.namespace.inside(), socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


def congestion(sock: socket.socket) -> str:
    """The socket's congestion control."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def test_a_named_congestion_control_is_set_and_stays(host: Host) -> None:
    one, other = tcp_pair(host)
    with one, other:
        control = CongestionControl(one, "reno")
        other.sendall(b"x")
        control.update(1.0, BLOCKED)
        assert congestion(one) == "reno"
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert control.chunk > 0


def test_what_a_connection_has_carried_is_known_where_the_kernel_counts_it(host: Host) -> None:
    one, other = tcp_pair(host)
    with one, other:
        control = CongestionControl(one)
        other.sendall(b"x" * 7)
        one.sendall(b"x" * 1000)
        other.recv(1000)
        # The kernel counts the SYN as a byte.
        until(lambda: control.carried() == (1001, 7), lambda: f"the counts, not {control.carried()}")
    assert control.carried() == (0, 0)
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"x")
        assert CongestionControl(left).carried() == (0, 0)


def test_options_of_tcp_are_set_below_tls_in_tls(host: Host) -> None:
    one, other = tcp_pair(host)
    with one, other:
        one.setblocking(False)
        sock: Any = GeventSocket(fileno=one.detach())
        for _ in range(2):
            sock = TlsStream(PlainStream(sock), client_context(Trust(insecure=True)), server_hostname="localhost")
        control = CongestionControl(sock, "reno")
        assert congestion(sock) == "reno"
        assert control._info()[0] > 0
        sock.close()


def test_on_loopback_nothing_is_changed_without_need(host: Host) -> None:
    one, other = tcp_pair(host)
    with one, other:
        before = congestion(one)
        control = CongestionControl(one, AUTO)
        control.update(1.0, FULL)
        assert congestion(one) == before


@pytest.mark.vm_too
def test_bbr_is_left_again_where_much_passes(host: Host) -> None:
    one, other = tcp_pair(host)
    with one, other:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        control, now = CongestionControl(one, AUTO), 0.0
        one.settimeout(PATIENCE)
        reader = threading.Thread(target=lambda: all(iter(lambda: other.recv(1 << 20), b"")), daemon=True)
        reader.start()

        def carry() -> None:
            one.sendall(bytes(4 << 20))

        carry()
        # As if the path had been narrow for a moment.
        try:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
        except OSError:
            pytest.skip("this kernel has no BBR for us")
        control._current = "bbr"

        def left() -> bool:
            nonlocal now
            carry()
            now += 1.0
            control.update(now, FREE)
            return congestion(one) == "reno"

        until(left, "BBR to be left")
        one.shutdown(socket.SHUT_WR)
        reader.join(PATIENCE)


def test_a_socket_that_is_not_tcp_is_left_alone() -> None:
    for end in socket.socketpair():
        with end:
            control = CongestionControl(end, AUTO)
            control.update(1.0, BLOCKED)
            assert control.path() == (math.inf, 0.0)


def test_what_the_other_end_acknowledges_is_known(host: Host) -> None:
    one, other = tcp_pair(host)
    with one, other:
        control = CongestionControl(one, AUTO)
        one.sendall(b"x")
        assert other.recv(1) == b"x"
        age, round_trip = until(lambda: control.path()[1] and control.path(), "an acknowledgement")
        assert 0 <= age < PATIENCE
        assert 0 < round_trip < PATIENCE


def test_a_congestion_control_is_checked_by_name() -> None:
    check(AUTO)
    check("reno")
    with pytest.raises(SettingsError, match="warp9"):
        check("warp9")


@pytest.mark.parametrize(("rate", "window"), [(1_000_000, RECEIVE_WINDOW_MIN), (80_000_000, 100_000)])
@pytest.mark.vm_too
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
        CongestionControl(sock).limit_receive_window(None)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) / 2 == module.RECEIVE_WINDOW_WIDE
        with contextlib.suppress(OSError):
            # Linux 5.14: the kernel may grow it again.
            assert sock.getsockopt(socket.SOL_SOCKET, module.SO_BUF_LOCK) == 0


def test_where_the_kernel_does_not_know_the_path_nothing_is_wrong() -> None:
    one, other = socket.socketpair()
    with one, other:
        CongestionControl(one).limit_receive_window(1_000_000)


class Kernel:
    """A TCP socket that says of its network what the test wants."""

    def __init__(self, current: str = "cubic", min_rtt: float = 0.0001, rate: int = 1_000_000) -> None:
        self.current, self.min_rtt, self.rate = current, min_rtt, rate
        #: BBR's bandwidth in bytes per second, and its gain in 256ths.
        self.bandwidth, self.gain = 0, 256
        #: Segments of 1,000 bytes that have arrived, and that were sent again; the round trip in seconds lately.
        self.arrived, self.again, self.round_trip = 0, 0, min_rtt
        self.options: dict[int, int | bytes] = {}
        self.looks = 0

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        if option == socket.TCP_CONGESTION:
            return self.current.encode().ljust(size, b"\0")
        if option == socket.TCP_INFO:
            self.looks += 1
            rtt, min_rtt = int(self.round_trip * 1e6), int(self.min_rtt * 1e6)
            facts = 1000, rtt, self.again, min_rtt, self.rate, self.arrived
            return struct.pack("=16xI48xI28xI44xI8xQ24xI", *facts)[:size]
        assert option == module.TCP_CC_INFO
        return struct.pack("=QIII", self.bandwidth, 0, self.gain, 0)

    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None:
        if option == socket.TCP_CONGESTION:
            assert isinstance(value, bytes)
            self.current = value.decode()
        self.options[option] = value

    @property
    def pacing(self) -> int:
        value = self.options.get(module.SO_MAX_PACING_RATE, struct.pack("=Q", UNLIMITED))
        assert isinstance(value, bytes)
        return int(struct.unpack("=Q", value)[0])


def test_bbr_is_taken_at_once_on_a_long_path() -> None:
    kernel = Kernel(min_rtt=0.005)
    CongestionControl(kernel)
    assert kernel.current == "bbr"


@pytest.mark.parametrize(
    ("state", "rate", "expected"),
    [(FULL, 1_000_000, "cubic"), (BLOCKED, 1_000_000, "bbr"), (BLOCKED, 200_000_000, "cubic"), (BLOCKED, 0, "cubic")],
)
def test_bbr_is_taken_on_a_short_path_where_the_network_is_the_limit(
    state: SocketState, rate: int, expected: str
) -> None:
    kernel = Kernel(rate=rate)
    CongestionControl(kernel).update(1.0, state)
    assert kernel.current == expected


def test_cubic_is_taken_on_a_fast_path_where_bbr_is_the_systems_own() -> None:
    kernel = Kernel("bbr", rate=200_000_000)
    CongestionControl(kernel).update(1.0, FREE)
    assert kernel.current == "cubic"


def test_a_free_socket_is_looked_at_only_for_bbr() -> None:
    for current, min_rtt, looks in [("cubic", 0.001, 0), ("reno", 0.1, 0), ("bbr", 0.1, 2), ("bbr", 0.001, 1)]:
        kernel = Kernel(current, min_rtt)
        control = CongestionControl(kernel, "reno" if current == "reno" else AUTO)
        kernel.looks = 0
        control.update(1.0, FREE)
        assert kernel.looks == looks


def test_the_kernel_is_asked_ten_times_a_second_at_most() -> None:
    kernel = Kernel()
    control = CongestionControl(kernel)
    kernel.looks = 0
    for step in range(100):
        control.update(1 + step / 100, FULL)
    assert kernel.looks == 10


def test_what_waits_unsent_follows_the_rate() -> None:
    for rate, size in [(1000, 4096), (10_000_000, 30_000), (10**10, 1 << 20)]:
        kernel = Kernel(rate=rate)
        control = CongestionControl(kernel)
        assert kernel.options[module.TCP_NOTSENT_LOWAT] == 2 * control.chunk == 32_768
        control.update(1.0, FULL)
        assert kernel.options[module.TCP_NOTSENT_LOWAT] == 2 * control.chunk == size


def test_bbr_that_stays_in_its_startup_is_held_to_its_bandwidth_on_a_short_path() -> None:
    kernel = Kernel("bbr", min_rtt=0.004)
    control = CongestionControl(kernel)
    kernel.bandwidth, kernel.gain = 5 << 30, 739
    for now, limit in [(1.0, UNLIMITED), (1.4, UNLIMITED), (1.6, 5 << 30)]:
        control.update(now, FULL)
        assert kernel.pacing == limit
    # It finds more, and has its time again; then it leaves its startup.
    kernel.bandwidth = 8 << 30
    control.update(2.0, FULL)
    assert kernel.pacing == UNLIMITED
    kernel.gain = 320
    control.update(3.0, FULL)
    assert kernel.pacing == UNLIMITED


def test_it_is_held_to_what_arrives_while_bytes_wait_in_a_long_path() -> None:
    kernel = Kernel("bbr", min_rtt=0.04)
    control = CongestionControl(kernel)
    kernel.round_trip = 0.08
    for now in (1.0, 1.5, 2.0):
        control.update(now, FREE)
        kernel.arrived += 1000
    # 2 MB a second arrive.
    assert 1_500_000 < kernel.pacing < 2_000_000
    kernel.round_trip = 0.04
    for step in range(1, 200):
        control.update(2 + step / 10, FREE)
    assert kernel.pacing > 1 << 30


def test_a_long_path_without_a_queue_is_not_held_to_a_bandwidth_that_was_never_asked_for() -> None:
    kernel = Kernel("bbr", min_rtt=0.04)
    control = CongestionControl(kernel)
    kernel.bandwidth, kernel.gain = 1000, 739
    for step in range(30):
        control.update(1 + step / 10, FULL)
    assert kernel.pacing > 1 << 30


def test_by_waits_a_short_path_is_not_held() -> None:
    kernel = Kernel("bbr", min_rtt=0.001)
    control = CongestionControl(kernel)
    kernel.round_trip = 0.08
    for now in (1.0, 1.5, 2.0):
        control.update(now, FULL)
        kernel.arrived += 1000
    assert kernel.pacing == UNLIMITED


def test_messages_are_short_on_a_long_path() -> None:
    kernel = Kernel(min_rtt=0.04)
    control = CongestionControl(kernel)
    assert (control.long, control.message) == (True, module.LONG_PATH_MESSAGE)
    # The network has changed.
    kernel.min_rtt = 0.001
    control.update(1.0, FULL)
    assert (control.long, control.message) == (False, BATCH_BYTES)


def test_a_kernel_that_does_not_say_what_arrived_sets_no_limit() -> None:
    class Older(Kernel):
        def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
            return super().getsockopt(level, option, size)[:168]

    kernel = Older("bbr", min_rtt=0.04)
    control = CongestionControl(kernel)
    kernel.round_trip = 0.08
    for now in (1.0, 1.5, 2.0):
        control.update(now, FULL)
    assert kernel.pacing == UNLIMITED
