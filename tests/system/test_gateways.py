"""Several gateways as one LAN, with FRR of Debian: docs/gateways.rst and contrib/evpn."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import typed
from tests.lab.gateways import (
    CONTRIB,
    VXLAN,
    Gateway,
    Network,
    address_of,
    gateway_network,
    give_addresses,
    join,
    mac_of,
    machine_behind,
    pings,
)
from tests.lab.hosts import PATIENCE, Host, Process, until
from tests.lab.tunnels import Stream, stream

pytestmark = pytest.mark.packages

#: Seconds within which a client that has moved must be reachable; more where tests may wait longer.
MOVED = 3 * PATIENCE / 20

#: A client that notices within two seconds that its gateway is gone.
LIVELY = ("--ping-interval", "1", "--ping-timeout", "1")


def uri(number: int) -> tuple[str, str]:
    """The option for this gateway."""
    return "--uri", f"ws://{address_of(number)}/"


@pytest.fixture
def two(network: None) -> Iterator[Network]:
    with gateway_network(2) as net:
        yield net


@pytest.fixture
def three(network: None) -> Iterator[Network]:
    with gateway_network(3) as net:
        yield net


def is_at(gateway: Gateway, number: int) -> bool:
    """Whether the client of this number is at a port of the gateway's own."""
    return any(name.startswith("ethws") for name in gateway.entries(mac_of(number)))


def test_clients_of_different_gateways_ping_and_stream(two: Network) -> None:
    """Whole frames of 1,500 bytes go, too: the network between gateways has 50 more."""
    one, _ = two.client(11, *uri(1))
    other, _ = two.client(12, *uri(2))
    pings(one, 12)
    sent, got = stream(one, other, "10.0.0.12", 64 << 20)
    assert sent == got
    one.command("ping -c1 -W5 -M do -s 1472 10.0.0.12")
    first, second = two.gateways
    assert "dst 192.0.2.2" in first.entries(mac_of(12))[VXLAN]
    assert "dst 192.0.2.1" in second.entries(mac_of(11))[VXLAN]
    assert mac_of(11) in second.frr.show("show evpn mac vni 100")


def test_where_the_network_between_gateways_cannot_carry_more_the_lan_has_less(network: None) -> None:
    """Nothing is lost or cut: the whole LAN has an MTU of 1,450."""
    with gateway_network(2, "--mtu", "1450", mtu=1500) as net:
        for gateway in net.gateways:
            gateway.command(f"ip link set {VXLAN} mtu 1450")
        one, _ = net.client(11, "--mtu", "1450", *uri(1))
        other, _ = net.client(12, "--mtu", "1450", *uri(2))
        pings(one, 12)
        one.command("ping -c1 -W5 -M do -s 1422 10.0.0.12")
        sent, got = stream(one, other, "10.0.0.12", 16 << 20)
        assert sent == got


@pytest.mark.parametrize("how", ["stopped", "killed", "cut off"])
def test_a_machine_that_says_nothing_is_reached_at_the_gateway_to_which_its_client_moved(
    three: Network, how: str
) -> None:
    far, _ = three.client(13, *uri(3))
    near, client = three.client(11, *uri(1), *uri(2), *LIVELY)
    silent = machine_behind(near, 99)
    pings(far, 99)
    # Neither end asks for the other's address: that would tell where it is.
    far.command(f"ip neigh replace 10.0.0.99 lladdr {mac_of(99)} dev br0 nud permanent")
    silent.command(f"ip neigh replace 10.0.0.13 lladdr {mac_of(13)} dev eth0 nud permanent")
    if how == "cut off":
        near.command("ip route add blackhole 192.0.2.1/32")
        client.says("connected to", times=2)
    else:
        client.signal(signal.SIGKILL if how == "killed" else signal.SIGTERM)
        client.ends()
        join(near, 11, *uri(2))
    pings(far, 99, MOVED)
    # The first one does not go on claiming it, although its port is kept for the client, or even in use.
    old, new, _ = three.gateways
    until(lambda: is_at(new, 99), "the address at the new gateway")
    until(lambda: not is_at(old, 99), "the old gateway to give the address up")


def test_a_client_that_moves_again_and_again_is_reached_each_time(two: Network) -> None:
    """More often than FRR takes for normal: it warns of a duplicate, and goes on."""
    far, _ = two.client(12, *uri(2))
    near, client = two.client(11, *uri(1))
    silent = machine_behind(near, 99)
    pings(far, 99)
    far.command(f"ip neigh replace 10.0.0.99 lladdr {mac_of(99)} dev br0 nud permanent")
    silent.command(f"ip neigh replace 10.0.0.12 lladdr {mac_of(12)} dev eth0 nud permanent")
    for turn in range(8):
        client.signal(signal.SIGKILL)
        client.ends()
        client = join(near, 11, *uri(2 - turn % 2))
        pings(far, 99, MOVED)
    logs = "".join(gateway.frr.log.read_text() for gateway in two.gateways)
    assert f"MAC {mac_of(99)} detected as duplicate" in logs


def test_a_gateway_that_dies_takes_its_own_clients_only_and_they_come_back_on_another(three: Network) -> None:
    mine, lost = three.client(11, *uri(1), *uri(2), *LIVELY)
    (other, _), (far, _) = others = [three.client(number, *uri(number - 10)) for number in (12, 13)]
    pings(far, 11)
    going_on = Stream(other, far, "10.0.0.13")
    three.gateways[0].die()
    lost.says("connected to ws://192.0.2.2")
    pings(far, 11)
    pings(mine, 12)
    going_on.goes_on()
    going_on.finish()
    assert all("lost" not in client.output for _, client in others)
    # Broadcasts are not sent there any more.
    for gateway in three.gateways[1:]:
        until(lambda: "192.0.2.1" not in gateway.peers(), "the dead gateway to be forgotten")  # noqa: B023


def test_haproxy_sends_the_clients_of_a_dead_gateway_to_another(two: Network, tmp_path: Path) -> None:
    """They know its address only, and their pings are as by default: HAProxy tells them."""
    proxy = two.machine(20)
    text = "".join(
        line for line in (CONTRIB / "haproxy.cfg").read_text().splitlines(keepends=True) if "gateway3" not in line
    )
    (tmp_path / "haproxy.cfg").write_text(f"global\n    log stdout format raw daemon err\n{text}")
    proxy.run(proxy.program("haproxy"), "-db", "-f", str(tmp_path / "haproxy.cfg"))
    numbers = (11, 12, 13, 14)
    clients = {number: two.client(number, "--uri", "ws://192.0.2.20/") for number in numbers}
    for number in numbers[1:]:
        pings(clients[11][0], number)
    dead = next(gateway for gateway in two.gateways if is_at(gateway, 11))
    moving = {number for number in numbers if is_at(dead, number)}
    assert 0 < len(moving) < len(numbers)
    dead.die()
    for number in moving:
        clients[number][1].says("connected to", times=2)
    for number in numbers[1:]:
        pings(clients[11][0], number)
    assert all("lost" not in clients[number][1].output for number in set(numbers) - moving)


def linked_twice(net: Network, *options: str) -> tuple[Host, list[Process]]:
    """One far LAN, which two clients on one machine join to a gateway each; and the clients."""
    machine = net.machine(11)
    machine.bridge("br0")
    machine.command(f"ip link set br0 type bridge {' '.join(options)}")
    give_addresses(machine, "br0", 11)
    return machine, [
        join(machine, 11, "--device", "first", *uri(1)),
        join(machine, 11, "--device", "second", *uri(2)),
    ]


def say(machine: Host) -> None:
    """A machine of this one's LAN says something, once."""
    frames = machine_behind(machine, 99).frames("eth0")
    frames.send(b"\xff" * 6 + b"\x02\xee\0\0\0\1\x88\xb5".ljust(54, b"\0"))


def test_a_loop_over_two_gateways_is_noticed_at_each_end_of_it(two: Network) -> None:
    """Here it is one machine with two clients. No client can know that the two servers are one LAN."""
    machine, clients = linked_twice(two, "stp_state 0")
    say(machine)
    first, second = two.gateways
    assert first.server is not None
    assert second.server is not None
    for process in (*clients, first.server, second.server):
        process.says("WARNING frames go in a loop")
    # FRR has noticed, too.
    duplicate = "detected as duplicate"
    until(lambda: any(duplicate in gateway.frr.log.read_text() for gateway in two.gateways), "FRR to notice the loop")
    # What the warning says ends it.
    machine.command("ip link set second nomaster")
    for process in (*clients, first.server, second.server):
        process.says("the loop")
    pings(machine_behind(machine, 98), 99)


def test_a_second_client_that_names_all_gateways_is_refused(two: Network) -> None:
    machine, _ = two.client(11, *uri(1), *uri(2))
    second = machine.etherws("client", "--foreground", "--bridge", "br0", "--device", "second", *uri(2), *uri(1))
    assert second.ends() == 73
    assert "links br0 to 192.0.2." in second.output


def test_spanning_tree_in_the_far_lan_opens_one_of_two_ways_and_the_other_when_that_fails(two: Network) -> None:
    """Its frames pass the gateways, whose bridges have none."""
    far, _ = two.client(12, *uri(2))
    # The shortest times that there are, in hundredths of a second.
    machine, clients = linked_twice(two, "stp_state 1 forward_delay 200 hello_time 100 max_age 600")

    def states() -> dict[str, str]:
        process = machine.run("bridge", "link")
        assert process.ends() == 0
        words = [line.split() for line in process.output.splitlines()]
        return {line[1].rstrip(":"): line[line.index("state") + 1] for line in words}

    until(lambda: states() == {"first": "forwarding", "second": "blocking"}, lambda: f"one way: {states()}")
    say(machine)
    pings(far, 11)
    assert all("loop" not in process.output for process in clients)
    clients[0].stop()
    until(lambda: states()["second"] == "forwarding", lambda: f"the other way: {states()}")
    pings(far, 11)


def test_two_machines_of_one_far_lan_make_no_loop_with_spanning_tree(two: Network) -> None:
    """Neither can know of the other's client. Both bridges speak spanning tree; the loop is found in time."""
    one, other = two.machine(11), two.machine(12)
    one.namespace.cable("wire", other.namespace, "wire")
    for number, host in ((11, one), (12, other)):
        host.bridge("br0", "wire")
        host.command("ip link set br0 type bridge stp_state 1 forward_delay 200 hello_time 100")
        give_addresses(host, "br0", number)
        host.set_link("wire", state="up")
    clients = [join(one, 11, *uri(1)), join(other, 12, *uri(2))]

    def states() -> list[str]:
        listings = [host.run("bridge", "link") for host in (one, other)]
        assert all(each.ends() == 0 for each in listings)
        return sorted(each for listing in listings for each in listing.output.split() if each in STATES)

    until(lambda: states() == ["blocking", *["forwarding"] * 3], lambda: f"one port to be closed: {states()}")
    say(one)
    pings(one, 12)
    assert all("loop" not in client.output for client in clients)


STATES = ("disabled", "listening", "learning", "forwarding", "blocking")


def test_isolated_clients_of_different_gateways_need_an_isolated_vxlan_port(two: Network) -> None:
    """Isolation is a matter of one bridge. What is not isolated, such as a router, is then at each gateway."""
    for gateway in two.gateways:
        give_addresses(gateway, "br0", gateway.number)
        assert gateway.server is not None
        gateway.server.stop()
        policy = gateway.frr.folder / "policy.toml"
        policy.write_text("[default]\nisolated = true\n")
        gateway.serve("--policy", str(policy))
    one, _ = two.client(11, *uri(1))
    two.client(12, *uri(2))
    pings(one, 12)
    for gateway in two.gateways:
        gateway.command(f"bridge link set dev {VXLAN} isolated on")
        typed.note(f"bridge link set dev {VXLAN} isolated on")
    pings(one, 1)
    assert one.run("ping", "-c2", "-W1", "10.0.0.12").ends() != 0


def test_two_gateways_that_are_wired_together_beside_vxlan_notice_the_loop(two: Network) -> None:
    """Whatever a client says goes round between the two, and to all clients. No port of etherws is a part of it."""
    client, _ = two.client(11, *uri(1))
    first, second = two.gateways
    first.namespace.cable("wire", second.namespace, "wire")
    for gateway in two.gateways:
        # Else the storm takes all of this machine's processors.
        gateway.command("tc qdisc add dev wire root tbf rate 1mbit burst 2kb latency 20ms")
        gateway.set_link("wire", state="up", master=int(gateway.links()["br0"]["index"]))
    say(client)
    for gateway in two.gateways:
        assert gateway.server is not None
        gateway.server.says("WARNING frames go in a loop between")
    first.command("ip link set wire nomaster")
    for gateway in two.gateways:
        assert gateway.server is not None
        gateway.server.says("is over")
