"""What the real kernel reports of changes: by ip, by router advertisements, and in floods."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.event
import pytest
from gevent import socket as gevent_socket

from etherws.kernel import netlink_watch, network_monitor
from etherws.kernel.network_changes import Changes
from etherws.kernel.network_monitor import REPORT_INTERVAL, REPORT_PAUSE, REPORTS_AT_ONCE, Budget
from tests.lab.hosts import PATIENCE, Host
from tests.lab.ip import router_advertisement

OWN = "ethws0"

#: A packet's destination and source before a router advertisement: all nodes, and the router.
ETHERNET = bytes.fromhex("333300000001") + b"\x02\xee\0\0\0\1"


class Watched:
    """A machine's changes, read when asked."""

    def __init__(self, host: Host) -> None:
        self.changes = Changes()
        with host.namespace.inside():
            self.sock = gevent_socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        network_monitor.open_groups(self.sock)
        self.news()

    def news(self) -> list[str]:
        """What has changed since the last call; what was done before the call is in it."""
        found = []
        while True:
            network_monitor.ask(self.sock, self.changes)
            if change := network_monitor.read_waiting(self.sock, self.changes, OWN):
                found.append(change)
            # The kernel makes the answers while it is asked for them.
            if not self.changes.asking:
                return found


@pytest.fixture
def watched(host: Host) -> Iterator[Watched]:
    with host.netlink() as route:
        route.link("add", ifname="eth0", kind="veth", peer="far")
    # IPv6 would have news of its own.
    for name in ("eth0", "far"):
        host.command(f"ip link set {name} addrgenmode none")
        host.set_link(name, state="up")
    host.command("ip addr add 192.0.2.2/24 dev eth0 valid_lft 3600 preferred_lft 1800")
    host.command("ip route add default via 192.0.2.1")
    made = Watched(host)
    with contextlib.closing(made.sock):
        yield made


def test_a_lease_that_is_renewed_is_no_change(host: Host, watched: Watched) -> None:
    for seconds in (3600, 7200):
        host.command(f"ip addr change 192.0.2.2/24 dev eth0 valid_lft {seconds} preferred_lft {seconds}")
        host.command("ip route replace default via 192.0.2.1")
    assert watched.news() == []
    host.command("ip addr add 192.0.2.3/24 dev eth0")
    assert watched.news() == ["192.0.2.3/24 of eth0 is there"]


def test_a_new_gateway_is_a_change(host: Host, watched: Watched) -> None:
    for gateway in ("192.0.2.9", "192.0.2.1"):
        host.command(f"ip route replace default via {gateway}")
        assert watched.news() == ["there is another default route, by eth0"]
    host.command("ip route add 198.51.100.0/24 via 192.0.2.1")
    assert watched.news() == []
    host.command("ip route del default")
    assert watched.news() == ["a default route is gone, by eth0"]


def test_a_router_advertisement_counts_once(host: Host, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    with host.namespace.inside(), contextlib.suppress(OSError):
        for setting in ("accept_dad", "accept_ra"):
            with open(f"/proc/sys/net/ipv6/conf/eth0/{setting}", "w") as file:
                file.write("0" if setting == "accept_dad" else "2")
    host.command("ip link set eth0 addrgenmode eui64")
    host.command("ip link set eth0 down")
    host.command("ip link set eth0 up")
    router = host.frames("far")

    def advertised() -> list[str]:
        """The news of one advertisement: it has arrived when the kernel refreshes the address."""
        before = len(told)
        router.send(ETHERNET + router_advertisement("2001:db8:1::"))
        with gevent.Timeout(PATIENCE):
            while len(told) == before or not any(b"\x20\x01\x0d\xb8\0\1" in data for data in told[before:]):
                found.extend(watched.news())
                gevent.sleep(0.002)
        return found[:]

    told, found = list[bytes](), list[str]()
    read = watched.changes.read

    def note(data: bytes, own: str) -> str:
        told.append(data)
        return read(data, own)

    monkeypatch.setattr(watched.changes, "read", note)
    first = advertised()
    assert any("2001:db8:1:" in one for one in first) or any("default route" in one for one in first)
    gevent.sleep(0)
    found.clear()
    for _ in range(3):
        assert advertised() == []


def test_messages_that_the_kernel_had_to_drop_are_a_change_only_if_something_differs(
    host: Host, watched: Watched
) -> None:
    def flood() -> None:
        with host.netlink() as route:
            index = route.link_lookup(ifname="eth0")[0]
            for _ in range(50):
                route.addr("add", index=index, address="198.51.100.1", prefixlen=24)
                route.addr("del", index=index, address="198.51.100.1", prefixlen=24)

    watched.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for number in range(1, 3):
        flood()
        # What was told before the socket was full may be a change.
        watched.news()
        assert watched.changes.losses == number
    for change, said in (("add", "there"), ("del", "gone")):
        flood()
        host.command(f"ip addr {change} 192.0.2.7/24 dev eth0")
        assert watched.news()[-1] == f"192.0.2.7/24 of eth0 is {said}"
    assert watched.news() == []


def test_many_routes_cost_nothing(host: Host, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def note(data: bytes, own: str) -> str:
        told.append((data, own))
        return ""

    monkeypatch.setattr(watched.changes, "read", note)
    with host.netlink() as route:
        index = route.link_lookup(ifname="eth0")[0]
        for number in range(100):
            route.route("add", dst=f"10.{number}.0.0", dst_len=16, gateway="192.0.2.1", oif=index)
    host.command("ip -6 route add 2001:db8::/32 dev eth0")
    assert watched.news() == []
    assert told == []


def test_reports_follow_each_other_soon_and_then_slowly() -> None:
    budget, now = Budget(), 1000.0
    for _ in range(REPORTS_AT_ONCE):
        assert budget.spend(now) == 0
    for _ in range(3):
        assert budget.spend(now) == pytest.approx(REPORT_PAUSE)
        now += REPORT_PAUSE / 2
        assert budget.spend(now) == pytest.approx(REPORT_PAUSE / 2)
        now += REPORT_PAUSE / 2
        assert budget.spend(now) == 0
    # After a quiet time they are free again.
    now += REPORTS_AT_ONCE * REPORT_PAUSE
    assert [budget.spend(now) for _ in range(REPORTS_AT_ONCE)] == [0] * REPORTS_AT_ONCE


def test_what_a_tunnel_brings_for_its_bridge_is_reported_at_a_bounded_rate(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The far LAN's DHCP gives the bridge an address with each session, and takes it away with each: were a session
    ended by each urgent report, this would be a loop. But that the connection's own address is gone is seen soon. The
    clock goes on by each pause only."""
    host.bridge("br0")
    clock, reports, urgent = [0.0], list[float](), list[float]()
    over = gevent.event.Event()
    sleep = gevent.sleep

    def pause(seconds: float) -> None:
        clock[0] += seconds
        sleep(0)

    def wait(seconds: float | None, function: Callable[[int], None], descriptor: int, timeout_value: None) -> None:
        if seconds:
            pause(seconds)
        else:
            function(descriptor)

    def report(now: bool) -> None:
        reports.append(clock[0])
        urgent.extend(clock[:now])
        if clock[0] > 12 * REPORT_PAUSE:
            over.set()
        host.command(f"ip addr {'add' if len(reports) % 2 else 'del'} 10.0.0.2/24 dev br0")

    monkeypatch.setattr(network_monitor, "gevent", SimpleNamespace(sleep=pause, with_timeout=wait))
    monkeypatch.setattr(network_monitor, "monotonic", lambda: clock[0])
    with host.namespace.inside():
        watching = network_monitor.watch(lambda: OWN, lambda: "", report)
        # It has opened its socket when it first waits.
        sleep(0)
    try:
        host.command("ip addr add 10.0.0.3/24 dev br0")
        assert over.wait(PATIENCE)
        assert REPORTS_AT_ONCE + 10 <= len(urgent) <= REPORTS_AT_ONCE + 14
        assert all(after - before >= REPORT_INTERVAL for before, after in itertools.pairwise(reports))
    finally:
        watching.close()


def test_after_a_failure_it_listens_anew_and_tells_of_that(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink_watch, "REOPEN_INTERVAL", 0.01)
    reports, again, first = list[None](), gevent.event.Event(), [OSError(9, "Bad file descriptor")]
    read_waiting = network_monitor.read_waiting

    def fails_once(*arguments: Any) -> str:
        if first:
            raise first.pop()
        return read_waiting(*arguments)

    def report(_: bool) -> None:
        reports.append(None)
        again.set()

    monkeypatch.setattr(network_monitor, "read_waiting", fails_once)
    with host.namespace.inside(), contextlib.closing(network_monitor.watch(lambda: OWN, lambda: "", report)):
        host.bridge("br0")
        assert again.wait(PATIENCE)
        again.clear()
        # The new socket is in the namespace that this greenlet was in.
        host.command("ip addr add 10.0.0.3/24 dev br0")
        assert again.wait(PATIENCE)
