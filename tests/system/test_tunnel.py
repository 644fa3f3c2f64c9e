"""The main job on real devices: two machines, a cable, `etherws server` and `etherws client`, and frames."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest

from tests.lab.frames import BROADCAST, KINDS, PEER, SOURCE, frame
from tests.lab.hosts import PATIENCE, Host, until
from tests.lab.pki import Certificate
from tests.lab.tunnels import start, stream

#: How a process starts is not what is tested here.
pytestmark = pytest.mark.usefixtures("forks_etherws")


@pytest.fixture(params=["ws", "wss"])
def tunnel(request: pytest.FixtureRequest, hosts: tuple[Host, Host], certificate: Certificate) -> tuple[Host, Host]:
    """Two machines whose ethws0 are joined."""
    start(hosts, certificate if request.param == "wss" else None)
    return hosts


def test_every_kind_of_frame_arrives_bit_for_bit_both_ways(tunnel: tuple[Host, Host]) -> None:
    ends = [machine.frames("ethws0") for machine in tunnel]
    for sender, receiver in (ends, reversed(ends)):
        for name, sent in KINDS.items():
            sender.send(sent)
            assert receiver.receive() == sent, name


def test_jumbo_frames_arrive_with_a_larger_mtu(hosts: tuple[Host, Host]) -> None:
    start(hosts, None, "--mtu", "9000")
    one, other = (machine.frames("ethws0") for machine in hosts)
    for size in (9014, 1514, 14):
        one.send(frame(size))
        assert other.receive() == frame(size)
        other.send(frame(size))
        assert one.receive() == frame(size)


def test_mtus_that_differ_are_warned_of_at_both_ends(hosts: tuple[Host, Host]) -> None:
    server = hosts[0].etherws("server", "--foreground", "--mtu", "9000")
    server.says("listening on ws://")
    client = hosts[1].etherws("client", "--foreground", "ws://192.0.2.1/")
    client.says("connected to ws")
    client.says(
        "the MTUs differ: 1500 at ethws0 here, 9000 at the interface of ws://192.0.2.1:80. Larger frames can be"
    )
    server.says("the MTUs differ: 9000 at ethws0 here, 1500 at the interface of 192.0.2.2. Larger frames can be lost")
    for process in (server, client):
        assert process.output.count("give both the lower one: --mtu 1500") == 1


def test_an_mtu_raised_under_a_running_tunnel_holds(hosts: tuple[Host, Host]) -> None:
    start(hosts)
    for machine in hosts:
        machine.set_link("ethws0", mtu=9000)
    one, other = (machine.frames("ethws0") for machine in hosts)
    one.send(frame(9014))
    assert other.receive() == frame(9014)


def test_thousands_of_frames_both_ways_at_once_keep_their_order(tunnel: tuple[Host, Host]) -> None:
    count, window = 5_000, 100
    rng = random.Random(4)
    streams = [[frame(rng.randint(14, 1514), seed=at) for at in range(count)] for _ in tunnel]
    results: list[list[bytes]] = [[], []]

    def carry(way: int) -> None:
        # Not more on the way than the TAP's ring of 1,000 holds: this is about order, not about loss.
        ends = [machine.frames("ethws0") for machine in (tunnel if way == 0 else tunnel[::-1])]
        for at in range(0, count, window):
            for sent in streams[way][at : at + window]:
                ends[0].send(sent)
            results[way] += [ends[1].receive() for _ in streams[way][at : at + window]]

    threads = [threading.Thread(target=carry, args=(way,)) for way in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * PATIENCE)
    for way in (0, 1):
        assert results[way] == streams[way]


def test_tcp_arrives_intact_both_ways(tunnel: tuple[Host, Host]) -> None:
    # Not by ping alone: ICMP does not notice a checksum that was left to hardware.
    for machine, address in zip(tunnel, ("10.0.0.1/24", "10.0.0.2/24"), strict=True):
        machine.add_address("ethws0", address)
    one, other = tunnel
    for sender, receiver, address in ((one, other, "10.0.0.2"), (other, one, "10.0.0.1")):
        sent, got = stream(sender, receiver, address, 32 << 20)
        assert sent == got


@pytest.fixture
def three(network: None) -> Iterator[tuple[Host, Host, Host]]:
    """A server in the middle of two clients: 192.0.2.1 to the one, 198.51.100.1 to the other."""
    hosts = Host(), Host(), Host()
    server, one, other = hosts
    try:
        for client, near, far in ((one, "192.0.2.1/24", "192.0.2.2/24"), (other, "198.51.100.1/24", "198.51.100.2/24")):
            name = "eth1" if client is one else "eth2"
            server.namespace.cable(name, client.namespace, "eth0")
            server.namespace.configure(name, near)
            client.namespace.configure("eth0", far)
        yield hosts
    finally:
        for machine in hosts:
            machine.close()


def test_a_second_client_joins_the_bridge_of_ethws0(three: tuple[Host, Host, Host]) -> None:
    server, one, other = three
    serving = server.etherws("server", "--foreground")
    serving.says("listening")
    one.etherws("client", "--foreground", "ws://192.0.2.1/").says("connected")
    second = other.etherws("client", "--foreground", "--retry-interval", "100ms", "ws://198.51.100.1/")
    second.says("503")
    assert serving.says("is in no bridge; put it into one").count("is in no bridge") == 1
    assert "ethws1" not in server.links()

    server.bridge("br0", "ethws0")
    serving.says("198.51.100.2 joined on ethws1")
    assert server.links()["ethws1"].get("master") == server.links()["br0"]["index"]
    ends = [machine.frames("ethws0") for machine in (one, other)]
    ends[0].send(frame(100, to=BROADCAST))
    assert ends[1].receive() == frame(100, to=BROADCAST)
    ends[1].send(frame(1514, to=SOURCE, source=PEER))
    assert ends[0].receive() == frame(1514, to=SOURCE, source=PEER)

    second.stop()
    serving.says("198.51.100.2 left ethws1")
    until(lambda: "ethws1" not in server.links(), "ethws1 to go with its client")
    assert "ethws0" in server.links()


def test_the_bridge_option_makes_a_bridge_and_takes_it_away(three: tuple[Host, Host, Host]) -> None:
    server, one, other = three
    serving = server.etherws("server", "--foreground", "--bridge", "br7")
    serving.says("listening")
    one.etherws("client", "--foreground", "ws://192.0.2.1/").says("connected")
    other.etherws("client", "--foreground", "ws://198.51.100.1/").says("connected")
    links = server.links()
    assert links["ethws0"].get("master") == links["ethws1"].get("master") == links["br7"]["index"]
    serving.stop()
    assert not {"br7", "ethws0", "ethws1"} & set(server.links())


def test_the_client_has_the_bridge_option_too(hosts: tuple[Host, Host]) -> None:
    server, client = hosts
    server.etherws("server", "--foreground").says("listening")
    running = client.etherws("client", "--foreground", "ws://192.0.2.1/", "--bridge", "br7")
    running.says("connected")
    links = client.links()
    assert links["ethws0"].get("master") == links["br7"]["index"]
    # A device that is made anew goes back by itself.
    client.delete_link("ethws0")
    running.says("ethws0 had been deleted and is made anew\n")
    links = client.links()
    assert links["ethws0"].get("master") == links["br7"]["index"]
    running.stop()
    assert not {"br7", "ethws0"} & set(client.links())


def test_a_bridge_that_others_use_stays(host: Host) -> None:
    serving = host.etherws("server", "--foreground", "--port", "0", "--bridge", "br7")
    serving.says("listening")
    with host.netlink() as route:
        route.link("add", ifname="vnet0", kind="veth", peer={"ifname": "eth0"})
        route.link("set", index=route.link_lookup(ifname="vnet0")[0], master=route.link_lookup(ifname="br7")[0])
    serving.stop()
    assert "br7" in host.links()
    assert "br7 stays" in serving.output


def test_the_first_client_to_return_gets_ethws0_back(three: tuple[Host, Host, Host]) -> None:
    server, one, other = three
    serving = server.etherws("server", "--foreground", "--bridge", "br0")
    serving.says("listening")
    first = one.etherws("client", "--foreground", "ws://192.0.2.1/")
    first.says("connected")
    other.etherws("client", "--foreground", "ws://198.51.100.1/").says("connected")
    first.stop()
    serving.says("192.0.2.2 left ethws0")
    one.etherws("client", "--foreground", "ws://192.0.2.1/").says("connected")
    serving.says("192.0.2.2 joined on ethws0", times=2)


def test_a_client_that_floods_does_not_starve_another(three: tuple[Host, Host, Host]) -> None:
    server, one, other = three
    server.etherws("server", "--foreground", "--bridge", "br0").says("listening")
    one.etherws("client", "--foreground", "ws://192.0.2.1/").says("connected")
    other.etherws("client", "--foreground", "ws://198.51.100.1/").says("connected")
    flooder, quiet, beyond = one.frames("ethws0"), other.frames("ethws0"), server.frames("ethws1")
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            flooder.send(frame(1514, to=b"\x02\xdd\x00\x00\x00\x09"))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for at in range(50):
            quiet.send(frame(100, to=b"\x02\xdd\x00\x00\x00\x08", seed=at))
            # What the flood lets through first is not counted; a starved client would run into the time-out.
            while beyond.receive() != frame(100, to=b"\x02\xdd\x00\x00\x00\x08", seed=at):
                pass
    finally:
        over.set()
        thread.join(PATIENCE)


def test_a_device_set_down_and_up_again_carries_on(hosts: tuple[Host, Host]) -> None:
    start(hosts)
    one, other = hosts
    ends = [machine.frames("ethws0") for machine in hosts]
    ends[0].send(frame(99))
    assert ends[1].receive() == frame(99)
    other.set_link("ethws0", state="down")
    for at in range(20):
        ends[0].send(frame(60, seed=at))
    other.set_link("ethws0", state="up")
    back = other.frames("ethws0")

    def through() -> bool:
        ends[0].send(frame(70))
        return back.receive() == frame(70)

    until(through, "a frame to pass again")
    assert "lost" not in one.links()


def test_a_renamed_device_carries_on(hosts: tuple[Host, Host]) -> None:
    start(hosts)
    for machine in hosts:
        machine.set_link("ethws0", state="down")
        machine.set_link("ethws0", ifname="lan")
        machine.set_link("lan", state="up")
    one, other = (machine.frames("lan") for machine in hosts)
    one.send(frame(99))
    assert other.receive() == frame(99)


@pytest.mark.parametrize("side", ["server", "client"])
def test_a_deleted_device_is_made_anew(hosts: tuple[Host, Host], side: str) -> None:
    server, client = hosts
    processes = {
        "server": server.etherws("server", "--foreground"),
    }
    processes["server"].says("listening")
    processes["client"] = client.etherws("client", "--foreground", "ws://192.0.2.1/", "--retry-interval", "100ms")
    processes["client"].says("connected")
    (server if side == "server" else client).delete_link("ethws0")
    processes[side].says("ethws0 had been deleted and is made anew; put it back into its bridge")
    processes["client"].says("connected to", times=2)
    one, other = (machine.frames("ethws0") for machine in hosts)
    one.send(frame(99))
    assert other.receive() == frame(99)


def test_the_client_keeps_its_device_when_the_server_goes_and_comes(hosts: tuple[Host, Host]) -> None:
    server, client = hosts
    first = server.etherws("server", "--foreground")
    first.says("listening")
    running = client.etherws("client", "--foreground", "ws://192.0.2.1/", "--retry-interval", "50ms")
    running.says("connected")
    client.add_address("ethws0", "10.0.0.2/24")
    client.bridge("br0", "ethws0")
    before = client.links()["ethws0"]
    first.stop()
    running.says("lost ws://192.0.2.1:80: closed by the peer, code 1001")
    server.etherws("server", "--foreground").says("listening")
    running.says("connected to ws://192.0.2.1:80", times=2)
    after = client.links()["ethws0"]
    for key in ("index", "master", "address"):
        assert before.get(key) == after.get(key)
    # One line for the loss, one for each reason and one for the return, whatever the number of attempts between.
    lines = running.output.splitlines()
    assert ["lost" in line for line in lines].count(True) == 1, lines
    assert len(lines) == 3 + len({line.partition("cannot connect")[2] for line in lines} - {""}) <= 5, lines
