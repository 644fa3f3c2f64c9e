"""Ports in bridges that change: real TAPs, and sessions that are a function to end them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from etherws.access.policy import Profile
from etherws.errors import DeviceError, EtherwsError, NoPort
from etherws.kernel import bridges as bridges_module
from etherws.kernel import guard as guard_module
from etherws.kernel import interfaces, made_bridges, nftables
from etherws.kernel.filter_state import FilterState
from etherws.server.port import ClientKey, Port, State
from etherws.server.ports import Ports
from etherws.settings import DeviceSettings
from etherws.tunnel.interface import Interface
from etherws.tunnel.wire import VNET_BYTES, Batch
from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import PATIENCE, Host
from tests.lab.lan import source

ALICE, BOB, CAROL = ClientKey("alice"), ClientKey("bob"), ClientKey("carol")
USUAL, ALONE = Profile(), Profile(isolated=True, rate_down=10**7, macs=2)


@contextlib.contextmanager
def serving(host: Host, bridge: str | None = "br0") -> Iterator[Ports]:
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        ports = Ports(DeviceSettings(bridge=bridge), 1000.0)
        try:
            yield ports
        finally:
            ports.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done after a while is done soon, but for what users would have done by then."""
    monkeypatch.setattr(bridges_module, "ROUND_INTERVAL", 0.002)
    monkeypatch.setattr(bridges_module, "RETRY_INTERVAL", 0.01)
    monkeypatch.setattr(made_bridges, "REMAKE_DELAY", 1000.0)
    monkeypatch.setattr(guard_module, "ROUND_INTERVAL", 0.002)
    monkeypatch.setattr(guard_module, "PAUSES", (0.005, 0.01))


def take(ports: Ports, client: ClientKey, profile: Profile = USUAL) -> Port:
    port = ports.take(client, profile, lambda: pytest.fail(f"the session of {client.identity} was ended"))
    assert isinstance(port, Port)
    return port


def isolated(ports: Ports) -> tuple[Port, list[EtherwsError]]:
    """The port of an isolated client that sends frames, and why its session was ended."""
    port = take(ports, ALICE, ALONE)
    failures: list[EtherwsError] = []
    port.on_failure(failures.append)
    port.sink().write_batch([])
    return port, failures


def settle(condition: Callable[[], Any]) -> None:
    while not condition():
        gevent.sleep(0.002)


def all_in(host: Host, bridge: str, *ports: Port) -> bool:
    found = host.links()
    return bridge in found and all(
        found[port.tap.name].get("master") == found[bridge]["index"] and found[port.tap.name]["flags"] & 1
        for port in ports
    )


def sent(number: int) -> bytes:
    return bytes(VNET_BYTES) + frame(60, to=BROADCAST, source=source(number))


def waiting(port: Port) -> list[bytes]:
    """The packets of the tests' own that wait in the port's TAP."""
    found: list[bytes] = []
    batch = Batch()
    while port.tap.poll_batch(batch):
        found += [bytes(batch.view[start:end]) for start, end in batch.spans]
    return [packet for packet in found if packet[VNET_BYTES + 6 : VNET_BYTES + 8] == source(0)[:2]]


def test_sessions_parked_ports_and_rules_outlive_a_restart_of_the_network(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(host) as ports:
        used, other, parked, elsewhere = (
            take(ports, ALICE, ALONE),
            take(ports, BOB, ALONE),
            take(ports, CAROL),
            take(ports, ClientKey("dave"), Profile(bridge="br-lab")),
        )
        failures: list[EtherwsError] = []
        for port in (used, other):
            port.on_failure(failures.append)
        sink = used.sink()
        sink.write_batch([sent(1), sent(2)])
        other.sink().write_batch([])
        ports.park(parked)
        indexes = [port.tap.index for port in (used, other, parked, elsewhere)]
        for bridge in ("br0", "br-lab"):
            host.delete_link(bridge)
        # Nobody is to be kept from anybody where there is no bridge.
        settle(lambda: used.filter.settings.bridge_is_away and other.filter.settings.bridge_is_away)
        gevent.sleep(0.1)
        settle(lambda: used.filter.state is not FilterState.LOST)
        sink.write_batch([sent(1)])
        # The ports join one after the other, and frames of one pass before the next is isolated.
        isolate = interfaces.isolate

        def isolated_late(index: int, on: bool) -> None:
            for tap in (used.tap, other.tap):
                tap.write_batch([sent(1)])
            isolate(index, on)

        monkeypatch.setattr(interfaces, "isolate", isolated_late)
        for bridge in ("br0", "br-lab"):
            host.bridge(bridge)
        settle(lambda: all_in(host, "br0", used, other, parked) and all_in(host, "br-lab", elsewhere))
        settle(lambda: used.filter.state is not FilterState.LOST)
        for port in (used, other):
            assert interfaces.is_isolated(port.tap.index)
            assert interfaces.has_rate(port.tap.index, 10**7)
            port.tap.write_batch([sent(1)])
        # The third source address is one too many, as before.
        sink.write_batch([sent(3), sent(2)])
        assert nftables.frame_counts("etherws-ethws0")
        assert (waiting(used), waiting(other), failures) == ([], [], [])
        assert [port.state for port in (used, other, parked)] == [State.IN_USE, State.IN_USE, State.PARKED]
        assert take(ports, CAROL) is parked
        assert [port.tap.index for port in (used, other, parked, elsewhere)] == indexes
    host.delete_link("br0")


@pytest.mark.parametrize("bridge", ["br0", None], ids=["named", "by hand"])
def test_a_client_that_comes_while_the_bridge_is_away_joins_no_other_half(host: Host, bridge: str | None) -> None:
    with serving(host, bridge) as ports:
        if bridge is None:
            host.bridge("br0", "ethws0")
        first, second = take(ports, ALICE), take(ports, BOB)
        host.delete_link("br0")
        with pytest.raises(DeviceError, match="cannot use the bridge br0: it was deleted; make it again"):
            take(ports, CAROL)
        # Who has a port gets it again.
        ports.park(first)
        settle(lambda: not ports._maker.is_only_port())
        with pytest.raises(DeviceError, match="br0: it was deleted"):
            take(ports, CAROL)
        assert take(ports, ALICE) is first
        host.bridge("br0")
        third = take(ports, CAROL) if bridge else None
        settle(lambda: all_in(host, "br0", first, second, *([third] if third else [])))
        third = third or take(ports, CAROL)
        assert all_in(host, "br0", third)
    host.delete_link("br0")


def test_further_clients_follow_a_bridge_with_a_new_name(host: Host) -> None:
    with serving(host) as ports:
        first = take(ports, ALICE)
        host.set_link("br0", state="down")
        host.set_link("br0", ifname="br9")
        second = take(ports, BOB)
        assert all_in(host, "br9", first, second)
        # The first port's interface, too.
        host.delete_link("ethws0")
        ports.free(first)
        assert all_in(host, "br9", take(ports, CAROL), second)


def test_an_isolated_client_that_somebody_takes_out_of_the_bridge_ends(host: Host) -> None:
    with serving(host) as ports:
        _, failures = isolated(ports)
        host.command("ip link set ethws0 nomaster")
        settle(lambda: failures)
        assert "it is in no bridge" in str(failures[0])


def test_a_policys_bridge_that_was_made_here_goes_at_the_end_unless_it_is_used(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(host) as ports:
        for name in ("br-lab", "br-gate"):
            ports.free(take(ports, ALICE, Profile(bridge=name)))
        host.add_address("br-gate", "10.0.0.1/24")
        # It stays while the server runs.
        assert {"br-lab", "br-gate"} <= set(host.links())
    assert {"br0", "br-lab", "br-gate", "ethws0"} & set(host.links()) == {"br-gate"}
    assert "br-gate stays: it has the address 10.0.0.1/24" in caplog.text


def test_without_a_bridge_the_hint_is_as_before(host: Host) -> None:
    with serving(host, None) as ports:
        take(ports, ALICE)
        with pytest.raises(NoPort, match="ip link set ethws0 master br0"):
            take(ports, BOB)


@pytest.mark.parametrize("bridge", ["br0", None], ids=["named", "by hand"])
def test_an_interface_that_comes_back_from_another_namespace_is_known_again(host: Host, bridge: str | None) -> None:
    with contextlib.closing(Host()) as guest, serving(host, bridge) as ports:
        if bridge is None:
            host.bridge("br0")
        first, name = take(ports, ALICE), ports.name
        with host.netlink() as route:
            route.link("set", index=first.tap.index, net_ns_fd=guest.namespace.fileno())
        settle(lambda: first.tap.index not in ports._maker._bridges._members)
        with guest.netlink() as route, host.netlink() as other:
            index = route.link_lookup(ifname=name)[0]
            # Another interface has its number when it comes back.
            other.link("add", ifname="taken", kind="bridge", index=index)
            route.link("set", index=index, net_ns_fd=host.namespace.fileno())
        host.command(f"ip link set {name} up master br0")
        settle(lambda: ports._maker._bridges.belongs(first.tap.index))
        second = take(ports, BOB)
        assert all_in(host, "br0", first, second)
        host.delete_link("br0")
        gevent.sleep(0.01)
        host.bridge("br0")
        settle(lambda: all_in(host, "br0", first, second))
    host.delete_link("br0")


@pytest.mark.parametrize("parked", [False, True], ids=["free", "parked"])
@pytest.mark.parametrize("profile", [USUAL, Profile(device="lab%d")], ids=["the first", "a further"])
def test_a_first_port_that_somebody_deletes_keeps_nobody_out(host: Host, parked: bool, profile: Profile) -> None:
    with serving(host) as ports:
        if parked:
            ports.park(take(ports, ALICE))
        host.delete_link("ethws0")
        port = take(ports, BOB, profile)
        assert all_in(host, "br0", port)
        assert "ethws0" in host.links()
        assert take(ports, ALICE).tap.name == ("ethws1" if port.tap.name == "ethws0" else "ethws0")


def test_who_was_put_back_by_hand_and_is_taken_out_again_ends(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """That its bridge was away once is no leave to be without isolation later."""
    with serving(host) as ports:
        port, failures = isolated(ports)
        host.delete_link("br0")
        settle(lambda: port.filter.settings.bridge_is_away)
        # Somebody is faster than we are.
        monkeypatch.setattr(bridges_module, "ROUND_INTERVAL", 1000.0)
        gevent.sleep(0.01)
        host.bridge("br0", "ethws0")
        settle(lambda: interfaces.is_isolated(port.tap.index))
        host.command("ip link set ethws0 nomaster")
        settle(lambda: failures)
    host.delete_link("br0")


def test_an_interface_that_goes_together_with_its_bridge_is_made_anew_and_joins_later(host: Host) -> None:
    with serving(host) as ports:
        ports.park(take(ports, ALICE, ALONE))
        for name in ("br0", "ethws0"):
            host.delete_link(name)
        port = take(ports, ALICE, ALONE)
        port.sink().write_batch([sent(1)])
        host.bridge("br0")
        settle(lambda: all_in(host, "br0", port) and interfaces.is_isolated(port.tap.index))
    host.delete_link("br0")


def test_a_bridge_that_was_made_here_and_goes_together_with_its_interface_is_made_again(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(made_bridges, "REMAKE_DELAY", 0.05)
    with (
        host.namespace.inside(),
        gevent.Timeout(PATIENCE),
        contextlib.closing(Interface(DeviceSettings(bridge="br0"))) as interface,
    ):
        for name in ("br0", "ethws0"):
            host.delete_link(name)
        tap = interface.check()
        assert "ethws0 had been deleted and is made anew; br0 is gone too, and is joined as soon as" in caplog.text
        settle(lambda: "br0" in host.links() and host.links()[tap.name].get("master") == host.links()["br0"]["index"])
    assert "br0" not in host.links()


def test_the_addresses_of_all_ports_and_bridges_are_the_same_after_a_restart(host: Host) -> None:
    found: list[list[str]] = []
    for _ in range(2):
        with serving(host) as ports:
            taken = [take(ports, ALICE), take(ports, BOB), take(ports, CAROL, Profile(bridge="br1"))]
            names = [*(port.tap.name for port in taken), "br0", "br1"]
            found.append([str(host.links()[name].get("address")) for name in names])
    assert found[0] == found[1]
    assert len(set(found[0])) == 5
    assert [address[:2] for address in found[0]] == ["fe", "fe", "fe", "02", "02"]
