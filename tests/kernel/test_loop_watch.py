"""Loops that real bridges tell of, and what the log says of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from etherws.kernel import loop_watch, loops, netlink_watch, own_frames
from etherws.kernel.loop_watch import LoopWatch
from tests.lab.hosts import PATIENCE, Host
from tests.lab.lan import address, from_, index_of, source

MACHINE = source(1).hex(":")


@pytest.fixture
def ports(lan: Host) -> dict[int, str]:
    """Of the bridge's three ports these two are ours."""
    return {index_of(lan, "port"): "192.0.2.7 as 'anna'", index_of(lan, "other"): ""}


@pytest.fixture
def watch(lan: Host, ports: dict[int, str], caplog: pytest.LogCaptureFixture) -> Iterator[LoopWatch]:
    """It watches, and looks more often than in earnest."""
    with pytest.MonkeyPatch.context() as patch, lan.namespace.inside(), gevent.Timeout(PATIENCE):
        patch.setattr(loop_watch, "LOOK_INTERVAL", 0.05)
        patch.setattr(loop_watch, "LOOP_LOOK_INTERVAL", 0.05)
        patch.setattr(loop_watch, "PAUSE", 0.01)
        patch.setattr(own_frames, "PAUSE", 0.01)
        made = LoopWatch(lambda: ports)
        made.start()
        while not made._own:
            gevent.sleep(0.002)
        yield made
        made.close()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def settle(condition: Callable[[], object], each: Callable[[], None] = lambda: None) -> None:
    while not condition():
        each()
        gevent.sleep(0.002)


def alternate(host: Host, *names: str) -> Callable[[], None]:
    """Each call sends the same frame in by these ports, one after the other."""
    senders = [host.frames(f"far-{name}") for name in names]
    frame = from_(MACHINE)

    def send() -> None:
        for sender in senders:
            sender.send(frame)

    return send


def test_a_loop_is_one_warning_with_both_ports_and_the_mend_and_a_line_when_it_is_over(
    lan: Host, watch: LoopWatch, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = alternate(lan, "port", "third")
    settle(lambda: lines(caplog), send)
    for _ in range(100):
        send()
    assert watch.going_on() == [
        "frames go in a loop between port (192.0.2.7 as 'anna') and third in br0; the log says what to try"
    ]
    monkeypatch.setattr(loops, "QUIET", 0.1)
    settle(lambda: len(lines(caplog)) > 1)
    assert lines(caplog) == [
        "frames go in a loop between port (192.0.2.7 as 'anna') and third in br0: the address"
        f" {MACHINE} moves from one to the other again and again. Take port or another port of the loop out of br0, or"
        " turn spanning tree on: ip link set br0 type bridge stp_state 1. Or two machines use this address, or"
        " somebody forges it",
        "the loop between port (192.0.2.7 as 'anna') and third in br0 is over",
    ]
    assert watch.going_on() == []


def test_a_machine_that_migrates_is_none(lan: Host, watch: LoopWatch, caplog: pytest.LogCaptureFixture) -> None:
    migrate = alternate(lan, "port", "other", "third", "port")
    migrate()
    # Those that come later are told later.
    settle(lambda: lines(caplog), alternate(lan, "other", "third"))
    assert "between other and third" in lines(caplog)[0]


def test_a_loop_by_vxlan_to_other_gateways_is_told_of_although_no_port_of_ours_is_in_it(
    lan: Host, watch: LoopWatch, caplog: pytest.LogCaptureFixture
) -> None:
    adding = "link add vxlan0 type vxlan id 7 local 127.0.0.1 dstport 4789 nolearning"
    if lan.run("ip", *adding.split()).ends() != 0:
        pytest.skip("this kernel has no VXLAN")
    lan.command("ip link set vxlan0 master br0 up")

    # As if the frame came in by both.
    def move() -> None:
        for name in ("third", "vxlan0"):
            learn(lan, name)

    settle(lambda: lines(caplog), move)
    assert lines(caplog)[0].startswith("frames go in a loop between third and vxlan0 in br0: the address")
    # On a gateway it might close the way to all others.
    assert "Take third or vxlan0 out of br0. For two ways on purpose turn spanning tree on where" in lines(caplog)[0]
    assert "stp_state" not in lines(caplog)[0]


def learn(host: Host, name: str) -> None:
    """Have the bridge know the machine at this port."""
    with host.netlink() as route:
        route.fdb("replace", ifindex=index_of(host, name), lladdr=MACHINE, state=0x40, flags=0x04)


def test_where_spanning_tree_is_on_the_mend_is_another(
    lan: Host, watch: LoopWatch, caplog: pytest.LogCaptureFixture
) -> None:
    lan.command("ip link set br0 type bridge stp_state 1 forward_delay 200")
    # Its ports do not learn at once.
    settle(lambda: lines(caplog), alternate(lan, "port", "other"))
    assert (
        "Spanning tree is on in br0, but does not see it: do rules drop bpdu here or at the other end?"
        in lines(caplog)[0]
    )


def test_own_frames_that_come_back_are_one_warning_with_the_port(
    lan: Host, watch: LoopWatch, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = lan.frames("far-port")
    settle(lambda: lines(caplog), lambda: far.send(from_(address(lan))))
    assert watch.going_on() == ["frames go in a loop: what br0 itself sends comes back to it; the log says what to try"]
    monkeypatch.setattr(own_frames, "QUIET", 0.1)
    settle(lambda: len(lines(caplog)) > 1)
    assert lines(caplog) == [
        "frames go in a loop: what br0 itself sends comes back to it by port (192.0.2.7 as 'anna'). Take the port out"
        " of br0, or turn spanning tree on: ip link set br0 type bridge stp_state 1. Or another machine uses the"
        " address of br0; then give one of the two another (--mac, or ip link set br0 address)",
        "br0 no longer gets its own frames back",
    ]


def test_a_twin_of_a_port_that_is_in_no_bridge_is_one_warning_with_who_it_is(
    lan: Host,
    ports: dict[int, str],
    watch: LoopWatch,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = index_of(lan, "port")
    with lan.netlink() as route:
        route.link("set", index=port, master=0)
    settle(lambda: port in watch._own)
    own, far = lan.frames("port"), lan.frames("far-port")
    for _ in range(3 * loops.MOVES):
        # What it sends itself is no reason.
        own.send(from_(address(lan, "port")))
    settle(lambda: lines(caplog), lambda: far.send(from_(address(lan, "port"))))
    monkeypatch.setattr(own_frames, "QUIET", 0.1)
    settle(lambda: len(lines(caplog)) > 1)
    assert lines(caplog) == [
        f"192.0.2.7 as 'anna' sends frames from the address of port itself, {address(lan, 'port')}: either another"
        " machine has this address, such as a clone of this one, or what this machine sends goes round and comes back."
        " Give one of the two machines another address (--mac), or look for a second way between the two LANs",
        "port no longer gets its own frames back",
    ]


def test_one_loop_that_is_seen_in_both_ways_is_one_warning(
    lan: Host, watch: LoopWatch, caplog: pytest.LogCaptureFixture
) -> None:
    send, far = alternate(lan, "port", "third"), lan.frames("far-port")
    settle(lambda: lines(caplog), send)
    [own] = watch._own.values()
    settle(lambda: own.last, lambda: far.send(from_(address(lan))))
    gevent.sleep(0.05)
    assert len(lines(caplog)) == 1


def test_a_port_that_changes_its_bridge_is_watched_there(
    lan: Host, ports: dict[int, str], watch: LoopWatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody moves it by hand, and nobody tells us."""
    lan.bridge("br1", "port")
    settle(lambda: set(watch._own) == {index_of(lan, "br0"), index_of(lan, "br1")})
    # What was said of a bridge that is gone does not go on.
    watch._told_of.add(index_of(lan, "br1"))
    lan.delete_link("br1")
    # A port that is in no bridge is watched itself.
    settle(lambda: set(watch._own) == {index_of(lan, "br0"), index_of(lan, "port")})
    assert watch.going_on() == []
    # The second of ours is watched as well, but not in a bridge that is gone.
    lan.delete_link("br0")
    settle(lambda: set(watch._own) == set(ports))


def test_a_port_that_somebody_puts_into_a_bridge_is_watched_there_at_once(
    lan: Host, ports: dict[int, str], watch: LoopWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_watch, "LOOK_INTERVAL", 3600.0)
    settle(lambda: watch._loops.bridges)
    gevent.sleep(0.1)
    lan.bridge("br1", "port")
    settle(lambda: index_of(lan, "br1") in watch._own)


def test_a_storm_costs_no_more_than_a_bounded_number_of_reads(
    lan: Host, watch: LoopWatch, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel drops what is not read."""
    messages: list[bytes] = []

    def count(data: bytes, now: float) -> list[loops.Loop]:
        # Not before: the pause must be the one after these.
        monkeypatch.setattr(loop_watch, "PAUSE", 3600.0)
        messages.append(data)
        return []

    monkeypatch.setattr(watch._loops, "read", count)
    send = alternate(lan, "port", "third")
    for _ in range(2000):
        send()
    settle(lambda: messages)
    gevent.sleep(0.1)
    assert len(messages) <= loop_watch.MESSAGES


def test_without_netlink_it_tries_again(
    lan: Host, ports: dict[int, str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG, "etherws")
    monkeypatch.setattr(netlink_watch, "REOPEN_INTERVAL", 0.01)
    join = loop_watch._join
    tried: list[None] = []

    def fails_once(sock: Any) -> None:
        tried.append(None)
        if len(tried) == 1:
            raise PermissionError(1, "Operation not permitted")
        join(sock)

    monkeypatch.setattr(loop_watch, "_join", fails_once)
    with lan.namespace.inside(), gevent.Timeout(PATIENCE):
        made = LoopWatch(lambda: ports)
        made.start()
        settle(lambda: made._own)
        made.close()
    assert "loops go unnoticed: Operation not permitted" in caplog.text
