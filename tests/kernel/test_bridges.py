"""Bridges that change under our interfaces, by the calls that the usual tools make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
import pytest

from etherws.errors import DeviceError
from etherws.kernel import bridges as bridges_module
from etherws.kernel import interfaces, links, made_bridges, membership, netlink_watch
from etherws.kernel.bridges import Bridges
from etherws.kernel.link_changes import Touched
from etherws.kernel.membership import State
from tests.lab.hosts import PATIENCE, Host
from tests.lab.lan import index_of, make_lan


@pytest.fixture
def lan(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A bridge of three ports; see make_lan(). What is judged after a while is judged soon."""
    monkeypatch.setattr(membership, "SETTLE", 0.02)
    monkeypatch.setattr(bridges_module, "ROUND_INTERVAL", 0.002)
    monkeypatch.setattr(bridges_module, "RETRY_INTERVAL", 0.01)
    monkeypatch.setattr(made_bridges, "REMAKE_DELAY", 0.05)
    return make_lan(host)


@pytest.fixture
def bridges(lan: Host) -> Iterator[Bridges]:
    """It watches: port is in br0 because the user said so, other because somebody has put it there."""
    with lan.namespace.inside(), gevent.Timeout(PATIENCE):
        made = Bridges()
        made.add(index_of(lan, "port"), "br0")
        made.add(index_of(lan, "other"), None)
        made.start()
        yield made
        made.close()


def settle(condition: Callable[[], Any]) -> None:
    """Let others run until the condition holds."""
    while not condition():
        gevent.sleep(0.002)


def state(bridges: Bridges, lan: Host, name: str) -> State:
    return bridges._members[index_of(lan, name)][0].state


def in_it(lan: Host, bridge: str = "br0") -> set[str]:
    """The interfaces of ours that are in the bridge, and up."""
    found = lan.links()
    number = found[bridge]["index"] if bridge in found else -1
    return {name for name in ("port", "other") if found[name].get("master") == number and found[name]["flags"] & 1}


BOTH = {"port", "other"}

#: How bridges are made anew: by hand, ifupdown (which sets its ports down and takes them out before), systemd.
RESTARTS = {
    "at once": ["ip link del br0", "ip link add br0 type bridge", "ip link set br0 up"],
    "ifupdown": [
        "ip link set port down", "brctl delif br0 port", "ip link set other down", "brctl delif br0 other",
        "ip link set br0 down", "brctl delbr br0", "brctl addbr br0", "ip link set br0 up",
    ],
    "down first": ["ip link set br0 down", "ip link del br0", "ip link add br0 type bridge"],
}  # fmt: skip


@pytest.mark.parametrize("commands", RESTARTS.values(), ids=RESTARTS)
@pytest.mark.parametrize("heard", [True, False], ids=["heard", "unheard"])
def test_a_bridge_that_comes_again_is_joined_again(
    bridges: Bridges, lan: Host, commands: list[str], heard: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for command in commands:
        lan.command(command)
        if heard:
            gevent.sleep(0)
    settle(lambda: in_it(lan) == BOTH)
    settle(lambda: "joined br0 again" in caplog.text)
    assert caplog.text.count("br0 was deleted") == 1


def test_a_bridge_is_waited_for_and_named_once(bridges: Bridges, lan: Host, caplog: pytest.LogCaptureFixture) -> None:
    lan.delete_link("br0")
    settle(lambda: state(bridges, lan, "other") is state(bridges, lan, "port") is State.AWAY)
    for wanted in ("br0", None):
        with pytest.raises(DeviceError, match="br0: it was deleted; make it again, and clients are let in"):
            bridges.place(wanted, index_of(lan, "other"))
    assert bridges.belongs(index_of(lan, "other"))
    # What has the name is no bridge yet.
    with lan.netlink() as route:
        route.link("add", ifname="br0", kind="veth", peer="br0-far")
    settle(lambda: "cannot put" in caplog.text)
    lan.delete_link("br0")
    lan.bridge("br0")
    settle(lambda: in_it(lan) == BOTH)
    assert bridges.place("br0", 0) == bridges.place(None, index_of(lan, "other")) == index_of(lan, "br0")
    assert caplog.text.count("br0 was deleted") == 1


def test_a_bridge_that_we_made_is_made_again_if_nobody_else_does(
    bridges: Bridges, lan: Host, caplog: pytest.LogCaptureFixture
) -> None:
    bridges.make("br7", autoconfigure=True)
    interfaces.join(index_of(lan, "third"), "br7")
    bridges.add(index_of(lan, "third"), "br7")
    before = index_of(lan, "br7")
    lan.delete_link("br7")
    settle(lambda: "third joined br7 again" in caplog.text)
    assert "br7 is made again, since nobody else has done so" in caplog.text
    assert index_of(lan, "br7") != before
    # Somebody else makes it: it is his.
    lan.delete_link("br7")
    lan.bridge("br7")
    settle(lambda: caplog.text.count("third joined br7 again") == 2)
    lan.delete_link("br7")
    gevent.sleep(0.1)
    assert "br7" not in lan.links()
    lan.bridge("br7")
    settle(lambda: caplog.text.count("third joined br7 again") == 3)
    bridges.close()
    assert "br7" in lan.links()


def test_a_bridge_that_we_made_goes_with_us(bridges: Bridges, lan: Host, caplog: pytest.LogCaptureFixture) -> None:
    assert bridges.make("br7", autoconfigure=True)
    assert bridges.make("br8", autoconfigure=True)
    assert not bridges.make("br7", autoconfigure=True)
    lan.add_address("br8", "10.0.0.1/24")
    bridges.close()
    assert not {"br7"} & set(lan.links())
    assert "br8 stays: it has the address 10.0.0.1/24. When nobody needs it any more: ip link del br8" in caplog.text
    # Once.
    bridges.close()
    assert caplog.text.count("br8 stays") == 1


def test_the_last_process_that_uses_a_bridge_of_etherws_removes_it(lan: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Workers of gunicorn. One that was killed removes nothing: as if it had not called close()."""
    with lan.namespace.inside(), gevent.Timeout(PATIENCE):
        killed, first, last = Bridges(), Bridges(), Bridges()
        assert [one.make("br7", autoconfigure=True) for one in (killed, first, last)] == [True, False, False]
        for one, name in ((first, "other"), (last, "third")):
            links.change(index_of(lan, name), master=index_of(lan, "br7"))
            one.add(index_of(lan, name), "br7")
        links.change(index_of(lan, "other"), master=0)
        first.close()
        assert "br7 stays: third is in it" in caplog.text
        links.change(index_of(lan, "third"), master=0)
        last.close()
        assert "br7" not in lan.links()
        # The user's, with any note or none.
        lan.bridge("br7")
        for note in ("", "the LAN"):
            links.change(index_of(lan, "br7"), alias=note)
            again = Bridges()
            again.add(index_of(lan, "other"), "br7")
            again.close()
            assert "br7" in lan.links()


def test_who_is_taken_out_stays_out_with_one_warning(
    bridges: Bridges, lan: Host, caplog: pytest.LogCaptureFixture
) -> None:
    for name in BOTH:
        lan.command(f"ip link set {name} nomaster")
    settle(lambda: {state(bridges, lan, name) for name in BOTH} == {State.OUT})
    gevent.sleep(0.05)
    assert not in_it(lan)
    for name in BOTH:
        text = f"somebody has taken {name} out of br0; it stays out; to put it back: ip link set {name} up master br0"
        assert caplog.text.count(text) == 1
    # The user's bridge is there for others.
    assert bridges.place("br0", 0) == index_of(lan, "br0")
    assert bridges.place(None, index_of(lan, "other")) is None
    assert not bridges.belongs(index_of(lan, "other"))
    # A new bridge: who belongs there by the user's word joins.
    lan.delete_link("br0")
    settle(lambda: state(bridges, lan, "port") is State.AWAY)
    lan.bridge("br0")
    settle(lambda: in_it(lan) == {"port"})
    assert state(bridges, lan, "other") is State.OUT


def test_a_reload_of_ifupdown2_is_undone_where_the_user_named_the_bridge(
    bridges: Bridges, lan: Host, caplog: pytest.LogCaptureFixture
) -> None:
    for name in BOTH:
        # What 'ifreload -a' of ifupdown2 3.0 does with each port that its file does not name.
        lan.set_link(name, master=0)
        lan.set_link(name, state="down")
    # The log says so when all have joined, so a moment after the kernel does.
    settle(lambda: "port joined br0 again" in caplog.text and state(bridges, lan, "other") is State.OUT)
    assert in_it(lan) == {"port"}
    assert caplog.text.count("bridge-ports-condone-regex ^port[0-9]+$' below 'iface br0'") == 1
    assert "somebody has taken other out of br0; it stays out" in caplog.text


def test_who_is_moved_stays_there(bridges: Bridges, lan: Host, caplog: pytest.LogCaptureFixture) -> None:
    lan.bridge("br1", "port", "other")
    settle(lambda: "from br0 to br1" in caplog.text)
    gevent.sleep(0.05)
    assert in_it(lan, "br1") == BOTH
    assert caplog.text.count("somebody has moved port from br0 to br1; it stays there") == 1
    # Clients go where the user wants them, or where the first port is.
    assert bridges.place("br0", 0) == index_of(lan, "br0")
    assert bridges.place(None, index_of(lan, "other")) == index_of(lan, "br1")


def test_a_bridge_with_a_new_name_is_the_same(bridges: Bridges, lan: Host, caplog: pytest.LogCaptureFixture) -> None:
    before = index_of(lan, "br0")
    lan.set_link("br0", state="down")
    lan.set_link("br0", ifname="br9")
    lan.bridge("br0")
    settle(lambda: bridges.place(None, index_of(lan, "other")) == before)
    # Further ones do not join another half.
    assert bridges.place("br0", 0) == before
    assert in_it(lan, "br9") == BOTH
    assert not caplog.records


def test_an_interface_that_is_gone_is_forgotten(bridges: Bridges, lan: Host) -> None:
    gone = index_of(lan, "port")
    lan.delete_link("port")
    settle(lambda: gone not in bridges._members)
    lan.delete_link("br0")
    lan.bridge("br0")
    settle(lambda: links.get(index_of(lan, "other")).master == index_of(lan, "br0"))
    # There is none of the user's left: somebody else may make it.
    lan.delete_link("br0")
    assert bridges.place("br0", 0) is None


def test_it_looks_again_after_messages_were_lost(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink_watch, "RECEIVE_BUFFER", 4096)
    with lan.namespace.inside(), gevent.Timeout(PATIENCE):
        bridges = Bridges()
        bridges.add(index_of(lan, "port"), "br0")
        bridges.start()
        gevent.sleep(0)
        with lan.netlink() as route:
            for number in range(50):
                route.link("add", ifname=f"x{number}", kind="veth", peer=f"y{number}")
        lan.delete_link("br0")
        lan.bridge("br0")
        settle(lambda: in_it(lan) == {"port"})
        bridges.close()


def test_many_that_join_cost_one_look_each(bridges: Bridges, lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each interface that joins makes messages about itself and about the bridge, which has two of ours."""
    with lan.netlink() as route:
        for number in range(20):
            route.link("add", ifname=f"x{number}", kind="veth", peer=f"y{number}")
    gevent.sleep(0.02)
    looks: list[int | str] = []
    find = links.find

    def counted(which: int | str) -> links.Link | None:
        looks.append(which)
        return find(which)

    monkeypatch.setattr(links, "find", counted)
    before = index_of(lan, "br0")
    with lan.netlink() as route:
        for number in range(20):
            route.link("set", index=route.link_lookup(ifname=f"x{number}")[0], master=before)
    # The last of all messages.
    lan.set_link("port", mtu=1400)
    settle(lambda: index_of(lan, "port") in looks)
    assert len(looks) < 10


@pytest.mark.parametrize("fails", [False, True], ids=["joins", "fails"])
def test_a_client_that_leaves_while_it_joins_holds_nobody_up(
    bridges: Bridges, lan: Host, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """To join takes a moment, in which the session of a client may end."""
    leaving, join = index_of(lan, "port"), interfaces.join

    def joins_late(index: int, bridge: str | int) -> None:
        if index == leaving:
            bridges.forget(index)
            if fails:
                raise DeviceError("it is gone")
        join(index, bridge)

    monkeypatch.setattr(interfaces, "join", joins_late)
    for _ in range(2):
        lan.delete_link("br0")
        settle(lambda: state(bridges, lan, "other") is State.AWAY)
        lan.bridge("br0")
        settle(lambda: "other" in in_it(lan))
    settle(lambda: not bridges._joining)


def test_a_bridge_that_cannot_be_made_again_holds_no_other_up(
    bridges: Bridges, lan: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridges.make("br7", autoconfigure=True)
    interfaces.join(index_of(lan, "port"), "br7")
    settle(lambda: bridges._members[index_of(lan, "port")][0].name == "br7")

    def fails(name: str, *, autoconfigure: bool = False, address: str | None = None) -> int:
        raise DeviceError(f"cannot make the bridge {name}: no")

    monkeypatch.setattr(interfaces, "make_bridge", fails)
    lan.delete_link("br7")
    settle(lambda: "cannot make the bridge br7: no; trying again" in caplog.text)
    lan.delete_link("br0")
    settle(lambda: state(bridges, lan, "other") is State.AWAY)
    lan.bridge("br0")
    settle(lambda: in_it(lan) == {"other"})


def test_many_interfaces_are_looked_at_a_few_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, looks, pauses = Bridges(), list[int](), [0]

    def walk(items: Iterable[int]) -> Iterator[int]:
        for item in items:
            pauses[0] += 1
            yield item

    many: Any = dict.fromkeys(range(1000))
    monkeypatch.setattr(bridges_module, "in_turns", walk)
    monkeypatch.setattr(Bridges, "_look", lambda _, indexes: looks.append(len(indexes)))
    watched._members = many
    watched._changed(dict.fromkeys(range(2000), Touched.NAME))
    assert (sum(looks), max(looks)) == (1000, bridges_module.TOGETHER)
    assert pauses[0] == 1000 / bridges_module.TOGETHER
