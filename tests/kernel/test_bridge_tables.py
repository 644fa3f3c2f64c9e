"""What bridges have learned behind many ports: a real bridge, with entries that an administrator has made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from etherws.kernel import bridge_tables
from etherws.kernel.bridge_tables import Behind, BridgeTables
from etherws.walks import T
from tests.lab.hosts import Host

#: include/uapi/linux/neighbour.h: an entry as if it was learned; one of an administrator's; of the bridge, and not of
#: the interface.
LEARNED, PERMANENT, MASTER = 0x40, 0x80, 0x04


@pytest.fixture
def lan(host: Host) -> Iterator[Host]:
    """Bridges br0 with ports a and c, and br1 with e; g is in none."""
    with host.netlink() as route:
        for name in ("a", "c", "e", "g"):
            route.link("add", ifname=name, kind="veth", peer={"ifname": f"far-{name}"})
    host.bridge("br0", "a", "c")
    host.bridge("br1", "e")
    with host.namespace.inside():
        yield host


def indexes(host: Host) -> dict[str, int]:
    return {name: link["index"] for name, link in host.links().items()}


def learn(host: Host, port: str, *numbers: int, state: int = LEARNED) -> None:
    index = indexes(host)[port]
    with host.netlink() as route:
        for number in numbers:
            address = f"02:00:00:00:{number // 256:02x}:{number % 256:02x}"
            route.fdb("append", ifindex=index, lladdr=address, state=state, flags=MASTER)


def test_each_port_has_its_own_machines_and_its_bridge(lan: Host) -> None:
    learn(lan, "a", *range(200))
    learn(lan, "c", 5000)
    learn(lan, "c", 5001, state=PERMANENT)
    learn(lan, "e", 6000)
    index = indexes(lan)
    tables = BridgeTables(lambda: [index[name] for name in ("a", "c", "e", "g")])
    found = tables.look()
    assert found[index["a"]].bridge == "br0"
    assert found[index["a"]].macs[:2] == ["02:00:00:00:00:00", "02:00:00:00:00:01"]
    assert (len(found[index["a"]].macs), found[index["a"]].more) == (64, 136)
    assert found[index["c"]] == Behind("br0", ["02:00:00:00:13:88"], 0)
    assert found[index["e"]] == Behind("br1", ["02:00:00:00:17:70"], 0)
    assert found[index["g"]] == Behind(None, [], 0)


def test_the_kernel_is_asked_once_for_each_bridge(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    answer = bridge_tables._answer

    def counting(sock: object, request: bytes) -> list[bytes]:
        asked.append(request)
        return answer(sock, request)  # type: ignore[arg-type]

    monkeypatch.setattr(bridge_tables, "_answer", counting)
    index = indexes(lan)
    ports = [index["a"], index["e"]]
    tables = BridgeTables(lambda: ports)
    for _ in range(5):
        tables.look()
    assert len(asked) == 2
    # A new one is not waited for: its bridge is known, and its machines with the next look.
    ports.append(index["c"])
    assert tables.look()[index["c"]] == Behind("br0", [], 0)
    assert len(asked) == 2


def test_a_port_that_moves_is_found_in_its_new_bridge(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_tables, "FRESH", 0.0)
    index = indexes(lan)
    tables = BridgeTables(lambda: [index["a"], index["c"], 4711])
    tables._shared._until = 0.0
    assert tables.look()[index["a"]].bridge == "br0"
    lan.set_link("a", master=index["br1"])
    tables._shared._until = 0.0
    assert tables.look()[index["a"]].bridge == "br1"
    lan.set_link("a", master=0)
    tables._shared._until = 0.0
    assert tables.look()[index["a"]].bridge is None
    # One that is gone is no error.
    assert tables.look()[4711] == Behind(None, [], 0)


def test_a_table_that_is_too_long_is_not_read_to_its_end(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_tables, "ANSWER_MAX", 1000)
    learn(lan, "a", *range(200))
    index = indexes(lan)
    found = BridgeTables(lambda: [index["a"]]).look()[index["a"]]
    assert 0 < len(found.macs) + found.more < 200


def test_an_error_of_the_kernel_leaves_what_else_is_known(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_tables, "RTM_GETNEIGH", 999)
    index = indexes(lan)
    assert BridgeTables(lambda: [index["a"]]).look()[index["a"]] == Behind("br0", [], 0)


def test_the_parts_of_an_answer_are_one_walk(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part alone is shorter than a turn: who began to count anew with each would never let others go on."""
    learn(lan, "a", *range(500))
    walked = []

    def in_turns(items: Iterable[T], *_: object) -> Iterator[T]:
        walked.append(found := list(items))
        yield from found

    monkeypatch.setattr(bridge_tables, "in_turns", in_turns)
    monkeypatch.setattr(bridge_tables, "_RECEIVE", 4096)
    BridgeTables(lambda: [indexes(lan)["a"]]).look()
    assert max(map(len, walked)) > 500
