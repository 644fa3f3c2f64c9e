"""Who is behind an interface is announced: on a real bridge, whose far port gets the frames."""

from __future__ import annotations

import contextlib

import gevent
import pytest

from etherws.errors import DeviceError
from etherws.kernel import announce
from etherws.kernel.announce import FRAME, NEAREST_BRIDGE, TYPE, Announcer, announcements
from tests.lab.hosts import Host, until
from tests.lab.lan import index_of, learned, source

LEARNED, STATIC, PERMANENT, MASTER, EXT_LEARNED = 0x40, 0x40 | 0x20, 0x80, 0x04, 0x10


def add(host: Host, port: str, number: int, state: int = LEARNED, flags: int = MASTER) -> None:
    """Give the bridge an entry, as if it had heard this machine at the port."""
    with host.netlink() as route:
        route.fdb("append", ifindex=index_of(host, port), lladdr=source(number).hex(":"), state=state, flags=flags)


def sources(frames: list[bytes]) -> list[bytes]:
    assert all(frame[:6] == NEAREST_BRIDGE and len(frame) == FRAME for frame in frames)
    return [frame[6:12] for frame in frames]


def announced(host: Host, port: str) -> list[bytes]:
    with host.namespace.inside():
        return sources(announcements(index_of(host, port)))


def own(host: Host, name: str) -> bytes:
    return bytes.fromhex(str(host.links()[name].get("address")).replace(":", ""))


def test_what_the_bridge_has_learned_elsewhere_is_announced_the_latest_first_and_the_bridge(lan: Host) -> None:
    add(lan, "other", 1)
    add(lan, "port", 2)
    add(lan, "third", 3, state=PERMANENT)
    # As FRR does for what is at another gateway.
    add(lan, "third", 4, flags=MASTER | EXT_LEARNED)
    add(lan, "third", 5, state=STATIC)
    until(lambda: len(announced(lan, "port")) == 3, "three machines")
    assert set(announced(lan, "port")) == {source(1), source(5), own(lan, "br0")}
    assert announced(lan, "port")[-1] == own(lan, "br0")


def test_the_latest_of_many_are_announced(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce, "MACHINES_MAX", 2)
    frames = lan.frames("far-other")
    for number in (1, 2, 3):
        add(lan, "other", number)
    # The kernel's clock has ten milliseconds.
    until(lambda: _ages(lan) > 1, "time to pass")
    frames.send((b"\xff" * 6 + source(1) + TYPE).ljust(60, b"\0"))
    until(lambda: announced(lan, "port")[0] == source(1), "the latest to be the first")
    assert len(announced(lan, "port")) == 3


def _ages(host: Host) -> int:
    with host.namespace.inside():
        return min(age for age, _, _ in announce._learned(index_of(host, "br0"), index_of(host, "port")))


def test_an_interface_in_no_bridge_announces_itself_and_one_that_is_down_or_gone_nothing(lan: Host) -> None:
    assert announced(lan, "far-port") == [own(lan, "far-port")]
    lan.set_link("far-port", state="down")
    assert announced(lan, "far-port") == []
    with lan.namespace.inside():
        assert announcements(9999) == []


def test_a_port_that_spanning_tree_keeps_closed_announces_nothing(lan: Host) -> None:
    add(lan, "other", 1)
    lan.command("ip link set br0 type bridge stp_state 1")
    lan.command("ip link set port nomaster")
    lan.command("ip link set port master br0")
    assert announced(lan, "port") == []


def test_a_machine_in_a_vlan_is_announced_in_it() -> None:
    frame = announce._frame(source(1), 7)
    assert frame[6:18] == source(1) + b"\x81\x00\x00\x07" + TYPE
    assert len(frame) == FRAME


def test_a_bridge_learns_from_an_announcement_and_does_not_pass_it_on(lan: Host) -> None:
    """The far ends stand for a client: they are in no bridge, and announce themselves into br0."""
    frames = lan.frames("far-other")
    mac = source(9).hex(":")
    lan.command(f"ip link set far-port address {mac}")
    with lan.namespace.inside(), contextlib.closing(Announcer()) as announcer:
        announcer.begin(lambda: index_of(lan, "far-port"))
        with gevent.Timeout(20):
            while mac not in learned(lan, "port"):
                gevent.sleep(0.01)
    lan.frames("far-port").send((b"\xff" * 6 + source(8) + TYPE).ljust(60, b"\0"))
    # Nothing came before this one.
    assert frames.receive()[6:12] == source(8)


def test_an_interface_that_is_away_or_gone_is_no_reason_to_fail(lan: Host) -> None:
    asked = []

    def gone() -> int | None:
        asked.append(1)
        if len(asked) > 1:
            raise DeviceError("the TAP is gone")
        return None

    with lan.namespace.inside(), contextlib.closing(Announcer()) as announcer:
        announcer.begin(gone)
        with gevent.Timeout(20):
            while len(asked) < len(announce.TIMES):
                gevent.sleep(0.01)
