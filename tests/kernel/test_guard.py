"""Rules that others take away, by the real tools: they come back, and no frame passes meanwhile."""

from __future__ import annotations

import contextlib
import logging
import select
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from etherws.errors import DeviceError, EtherwsError
from etherws.kernel import guard as guard_module
from etherws.kernel import interfaces, netlink_watch, nftables
from etherws.kernel.filter_state import FilterState
from etherws.kernel.guard import Guard
from etherws.kernel.kernel_filters import KernelFilters
from etherws.kernel.port_filter import PortFilter
from etherws.kernel.rules import BPDU, Rules
from etherws.tunnel.filtered_sink import FilteredSink
from etherws.tunnel.tap import Tap
from etherws.tunnel.wire import VNET_BYTES
from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import PATIENCE, Frames, Host
from tests.lab.lan import index_of, learned, make_lan, passes, source, tables


@pytest.fixture
def lan(host: Host) -> Host:
    """A bridge of three ports; see make_lan()."""
    return make_lan(host)


@pytest.fixture
def guard(lan: Host) -> Iterator[Guard]:
    """It watches."""
    with lan.namespace.inside(), gevent.Timeout(PATIENCE):
        made = Guard()
        made.start()
        yield made
        made.close()


def sent(number: int) -> bytes:
    return frame(60, to=BROADCAST, source=source(number))


#: From a source that each test lets through, sent after a frame that may not pass.
MARK = frame(61, to=BROADCAST, source=source(1))


def settle(condition: Callable[[], Any]) -> None:
    """Let the guard run until the condition holds."""
    while not condition():
        gevent.sleep(0.002)


def armed(guard: Guard, lan: Host, rules: Rules, name: str = "port") -> PortFilter:
    """A port's filter whose client sends."""
    made = guard.port_filter(index_of(lan, name))
    made.need(rules)
    made.arm()
    return made


def back(port: PortFilter) -> bool:
    """Whether rules were put in anew, which no frame has passed yet."""
    return port.state is FilterState.UNUSED


REMOVALS = {
    "flush ruleset": ["flush ruleset"],
    "flush ruleset netdev": ["flush ruleset netdev"],
    "delete table": ["delete table netdev etherws-port"],
    "flush table": ["flush table netdev etherws-port"],
    "flush chain": ["flush chain netdev etherws-port ingress"],
    "delete chain": ["flush chain netdev etherws-port ingress", "delete chain netdev etherws-port ingress"],
    "delete rule": ["delete rule netdev etherws-port ingress handle 8"],
    "insert rule": ["insert rule netdev etherws-port ingress accept"],
    "add rule": ["add rule netdev etherws-port ingress accept"],
    "replace rule": ["replace rule netdev etherws-port ingress handle 6 accept"],
    "in place of ours": ["delete table netdev etherws-port", "add table netdev etherws-port"],
}


@pytest.mark.parametrize("commands", REMOVALS.values(), ids=REMOVALS)
def test_rules_that_others_remove_or_change_are_put_back(
    guard: Guard, lan: Host, commands: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    port = armed(guard, lan, Rules(macs=2, drop=frozenset({BPDU})))
    for command in commands:
        lan.command(f"nft {command}")
    settle(lambda: back(port))
    assert tables(lan).keys() == {"etherws-port"}
    port.arm()
    assert [number for number in range(1, 5) if passes(*ends, sent(number), MARK)] == [1, 2]
    [line] = {record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING}
    assert line.startswith("the rules of port were removed or changed by nft (process ")


def test_what_others_do_elsewhere_and_what_we_do_is_nothing(
    guard: Guard, lan: Host, caplog: pytest.LogCaptureFixture
) -> None:
    port, other = armed(guard, lan, Rules(macs=2)), armed(guard, lan, Rules(macs=2), "other")
    before = tables(lan)
    for command in (
        "add table netdev mine",
        "add chain netdev mine in { type filter hook ingress device port priority 0; }",
        "add table inet etherws-port",
        "flush table inet etherws-port",
    ):
        lan.command(f"nft {command}")
    other.need(Rules(macs=3))
    other.clear()
    gevent.sleep(0)
    # Kept, since the guard watches a filter only as long as somebody has it.
    third = armed(guard, lan, Rules(macs=1), "third")
    lan.command("nft delete table netdev etherws-third")
    # The last is told after all others.
    settle(lambda: back(third))
    assert "the rules of third were" in caplog.text
    assert (port.state, tables(lan)["etherws-port"]) == (FilterState.USED, before["etherws-port"])
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_the_owner_may_take_addresses_out_that_were_learned(guard: Guard, lan: Host) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    port = armed(guard, lan, Rules(macs=1))
    assert passes(*ends, sent(1), MARK)
    assert not passes(*ends, sent(2), MARK)
    lan.command("nft flush set netdev etherws-port addresses")
    assert passes(*ends, sent(2), frame(61, to=BROADCAST, source=source(2)))
    third = armed(guard, lan, Rules(macs=1), "third")
    lan.command("nft delete table netdev etherws-third")
    settle(lambda: back(third))
    assert port.state is FilterState.USED


def test_a_list_of_addresses_is_put_back(guard: Guard, lan: Host) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    port = armed(guard, lan, Rules(macs=frozenset({source(1).hex(":")})))
    lan.command(f"nft add element netdev etherws-port addresses {{ {source(2).hex(':')} }}")
    settle(lambda: back(port))
    assert not passes(*ends, sent(2), MARK)
    port.arm()
    lan.command("nft flush set netdev etherws-port addresses")
    settle(lambda: back(port))
    assert passes(*ends, sent(1), MARK)


def test_what_a_set_has_learned_stays_if_it_can_be_read(guard: Guard, lan: Host) -> None:
    from etherws.kernel.learned import LearnedAddresses

    ends = lan.frames("far-port"), lan.frames("far-other")
    port = guard.port_filter(index_of(lan, "port"))
    port.need(Rules(macs=1), LearnedAddresses())
    port.arm(source(1))
    assert passes(*ends, sent(1), MARK)
    lan.command("nft insert rule netdev etherws-port ingress accept")
    settle(lambda: back(port))
    port.arm(source(2))
    assert not passes(*ends, sent(2), MARK)


def test_lost_messages_make_it_look_at_all_tables(
    guard: Guard, lan: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ports = [armed(guard, lan, Rules(macs=2), name) for name in ("port", "other", "third")]
    assert guard._rules is not None
    watched = guard._rules._socket
    assert watched is not None
    # It has read of all three tables, so that it can tell which of them differ.
    settle(lambda: not select.select([watched], [], [], 0)[0])
    monkeypatch.setattr(netlink_watch, "RECEIVE_BUFFER", 4096)
    netlink_watch.make_room(watched)
    # The guard does not run meanwhile.
    lines = "\n".join(f"add table inet filler{number}" for number in range(500))
    lan.command("nft flush table netdev etherws-other")
    lan.run("sh", "-c", f"echo '{lines}' | nft -f -").ends()
    lan.command("nft delete table netdev etherws-port")
    settle(lambda: "changed too much at once to be known" in caplog.text)
    settle(lambda: back(ports[0]) and back(ports[1]))
    assert ports[2].state is FilterState.USED


def test_a_flood_of_removals_costs_a_bounded_number_of_rounds(
    guard: Guard, lan: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard_module, "ROUND_INTERVAL", 1000.0)
    installed: list[str] = []
    install = nftables.Table.install

    def count(table: nftables.Table) -> None:
        installed.append(table.name)
        install(table)

    monkeypatch.setattr(nftables.Table, "install", count)
    ports = [armed(guard, lan, Rules(macs=2), name) for name in ("port", "other")]
    lan.command("nft flush ruleset")
    settle(lambda: all(map(back, ports)))
    for _ in range(10):
        lan.command("nft add table netdev etherws-port")
        lan.command("nft flush ruleset")
        gevent.sleep(0.005)
    # Once at the beginning, and once put back; the rest of the flood is waited for.
    assert len(installed) == 4
    assert {port.state for port in ports} == {FilterState.LOST}
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert 1 <= len(warnings) <= 6


# What the interface has.


def test_rules_follow_a_new_name_at_once(guard: Guard, lan: Host, caplog: pytest.LogCaptureFixture) -> None:
    ends = lan.frames("far-port"), lan.frames("far-other")
    port = armed(guard, lan, Rules(macs=1))
    lan.set_link("port", state="down")
    lan.set_link("port", ifname="renamed")
    lan.set_link("renamed", state="up")
    settle(lambda: back(port))
    assert tables(lan).keys() == {"etherws-renamed"}
    port.arm()
    assert [number for number in (1, 2) if passes(*ends, sent(number), MARK)] == [1]
    assert "port has a new name, renamed; what is enforced there is put in again" in caplog.text


def test_a_rate_that_others_remove_or_change_is_put_back(
    guard: Guard, lan: Host, caplog: pytest.LogCaptureFixture
) -> None:
    port = armed(guard, lan, Rules(rate_down=10**7))
    for command in (
        "tc qdisc del dev port root",
        "tc qdisc replace dev port root handle 5: tbf rate 1gbit burst 400000 limit 900000",
        "tc qdisc change dev port root handle e7e7: tbf rate 1gbit burst 400000 limit 900000",
    ):
        lan.command(command)
        settle(lambda: back(port))
        assert interfaces.has_rate(port.place.index, 10**7), command
        port.arm()
    assert caplog.text.count("the rate limit of port is gone; what is enforced there is put in again") == 3


@pytest.mark.parametrize(
    "commands",
    [
        ["bridge link set dev port isolated off"],
        ["ip link set port nomaster", "ip link set port master br0"],
    ],
    ids=["off", "out and in"],
)
def test_isolation_that_others_end_is_put_back(guard: Guard, lan: Host, commands: list[str]) -> None:
    port = armed(guard, lan, Rules(isolated=True))
    for command in commands:
        lan.command(command)
    settle(lambda: back(port))
    assert interfaces.is_isolated(port.place.index)


def test_who_cannot_be_isolated_any_more_is_told_to_end(
    guard: Guard, lan: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "PAUSES", (0.001, 0.001))
    port = armed(guard, lan, Rules(isolated=True))
    ends: list[EtherwsError] = []
    port.on_failure = ends.append
    lan.command("ip link set port nomaster")
    settle(lambda: ends)
    assert "it is in no bridge" in str(ends[0])
    assert port.failure is ends[0]
    with pytest.raises(DeviceError, match="it is in no bridge"):
        port.arm()
    # Nobody else is refused for that.
    settle(lambda: guard._probe is None)
    assert guard.failure is None
    lan.command("ip link set port master br0")
    port.arm()
    assert interfaces.is_isolated(port.place.index)


# No frame passes meanwhile.


@contextlib.contextmanager
def tap_in_br0(lan: Host) -> Iterator[tuple[Tap, Frames]]:
    tap = Tap("ethws%d")
    try:
        interfaces.join(tap.index, "br0")
        tap.carrier(True)
        yield tap, lan.frames("far-other")
    finally:
        tap.close()


def test_a_sink_holds_frames_until_the_rules_are_back(guard: Guard, lan: Host) -> None:
    with tap_in_br0(lan) as (tap, receiver):
        port = guard.port_filter(tap.index)
        port.need(Rules(macs=1))
        sink = FilteredSink(tap, port)
        sink.write_batch([bytes(VNET_BYTES) + sent(1)])
        assert receiver.receive() == sent(1)
        assert sink.write_batch == tap.write_batch
        # The next round is late.
        guard._greenlets[-1].kill()
        lan.command("nft flush ruleset")
        settle(lambda: port.state is FilterState.LOST)
        waiting = gevent.spawn(sink.write_batch, [bytes(VNET_BYTES) + sent(1), bytes(VNET_BYTES) + sent(2)])
        gevent.sleep(0.01)
        assert not waiting.dead
        assert not tables(lan)
        guard._greenlets.append(gevent.spawn(guard._put_back))
        waiting.get()
        sink.write_batch([bytes(VNET_BYTES) + sent(3), bytes(VNET_BYTES) + frame(60, to=BROADCAST, source=source(1))])
        assert [receiver.receive() for _ in range(2)] == [sent(1)] * 2
        assert learned(lan, tap.name) == {source(1).hex(":")}
        port.forget()


def test_without_a_way_back_sessions_end_and_others_are_refused_until_there_is_one(
    lan: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard_module, "PAUSES", (0.001, 0.001))
    monkeypatch.setattr(guard_module, "RETRY_INTERVAL", 0.005)
    with lan.namespace.inside(), gevent.Timeout(PATIENCE):
        filters = KernelFilters()
        port = filters.port_filter(index_of(lan, "port"))
        port.need(Rules(macs=1))
        port.arm()
        ends: list[EtherwsError] = []
        port.on_failure = ends.append
        with monkeypatch.context() as broken:
            broken.setattr(nftables.Table, "install", _refuse)
            broken.setattr(nftables.Table, "dry_run", _refuse)
            lan.command("nft flush ruleset")
            settle(lambda: ends)
            with pytest.raises(DeviceError, match="cannot filter what comes in by port"):
                port.arm()
            settle(lambda: filters._guard.failure is not None)
            with pytest.raises(DeviceError, match="cannot filter what clients send"):
                filters.possible(Rules(macs=256, macs_required=False))
            # Who needs no filter is let in.
            assert filters.possible(Rules(rate_down=10**6))
        settle(lambda: filters._guard.failure is None)
        assert filters.possible(Rules(macs=1)) == Rules(macs=1)
        assert "a session that needs these rules ends" in caplog.text
        assert "rules can be put in again" in caplog.text
        port.arm()
        assert tables(lan).keys() == {"etherws-port"}
        filters.close()


def _refuse(table: nftables.Table) -> None:
    raise OSError(22, "no")


def test_a_port_whose_interface_is_gone_needs_nothing(guard: Guard, lan: Host) -> None:
    port = armed(guard, lan, Rules(macs=1))
    lan.delete_link("port")
    lan.command("nft flush ruleset")
    settle(lambda: port.state is FilterState.ABSENT)
    assert port.failure is None
    assert not tables(lan)


def test_a_socket_that_fails_is_opened_anew_and_all_rules_are_put_in_again(
    guard: Guard, lan: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    guard.close()
    monkeypatch.setattr(netlink_watch, "REOPEN_INTERVAL", 0.01)
    failing = iter([OSError(9, "Bad file descriptor")])
    watch = Guard._watch_rules

    def fails_once(self: Guard, sock: Any) -> None:
        if error := next(failing, None):
            raise error
        watch(self, sock)

    monkeypatch.setattr(Guard, "_watch_rules", fails_once)
    port = armed(guard, lan, Rules(macs=1))
    guard.start()
    settle(lambda: back(port))
    assert "changes of rules go unnoticed for 0.01 s, then etherws listens to the kernel anew: [Errno 9]" in caplog.text
    port.arm()
    lan.command("nft flush ruleset")
    settle(lambda: back(port))
