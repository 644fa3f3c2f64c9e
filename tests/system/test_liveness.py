"""Peers that fall silent, paths that are cut or come back, and servers to choose from: who notices, and what then."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from time import monotonic

import gevent
import pytest

from etherws.tunnel import tap_carrier
from etherws.tunnel.offloads import Offload
from etherws.tunnel.tap import Tap
from tests.lab.frames import frame
from tests.lab.hosts import PATIENCE, Host, Process, until
from tests.lab.peer import Peer, masked
from tests.lab.servers import serve, switching

#: How a process starts is not what is tested here.
pytestmark = pytest.mark.usefixtures("forks_etherws")

#: As little as leaves a busy machine its time.
QUICK = ("--ping-interval", "300ms", "--ping-timeout", "300ms")
EAGER = ("--retry-interval", "50ms", "--max-retry-interval", "50ms", "--connect-timeout", "300ms")
#: The same where it must not run out.
LENIENT = ("--ping-interval", "200ms", "--ping-timeout", "1s")
#: Who waits this long waits for something else.
IDLE = ("--retry-interval", "1h", "--max-retry-interval", "1h")

#: include/uapi/linux/if_addr.h
IFA_F_TENTATIVE = 0x40

PING, PONG, CLOSE = 0x89, 0x8A, 0x88


def silence(host: Host) -> None:
    """Let nothing in from the cable any more; nobody is told."""
    host.command("nft add table ip cut")
    host.command("nft add chain ip cut in { type filter hook input priority 0 ; }")
    host.command("nft add rule ip cut in iifname eth0 drop")


def connect(hosts: tuple[Host, Host], *options: str) -> tuple[Process, Process]:
    """A server and a client, connected."""
    server = hosts[0].etherws("server", "--foreground", "--debug", *options)
    server.says("listening")
    client = hosts[1].etherws("client", "--foreground", "--debug", "ws://192.0.2.1/", *EAGER, *options)
    client.says("connected to ws")
    server.says("joined on ethws0")
    return server, client


@pytest.mark.parametrize("deaf", ["both", "server", "client"])
def test_a_silent_cut_is_noticed_at_both_ends_and_mended(hosts: tuple[Host, Host], deaf: str) -> None:
    server, client = connect(hosts, *QUICK)
    for host, name in zip(hosts, ("server", "client"), strict=True):
        if deaf in (name, "both"):
            silence(host)
    server.says("left ethws0")
    client.says("lost ws://192.0.2.1:80")
    for process, name in ((server, "server"), (client, "client")):
        if deaf in (name, "both"):
            assert "nothing heard for " in process.output
    for host, name in zip(hosts, ("server", "client"), strict=True):
        if deaf in (name, "both"):
            host.command("nft delete table ip cut")
    client.says("connected to ws", times=2)
    # The client may know first. Until its session begins, the server drops what waits in its TAP.
    server.says("carrier on", times=2)
    ends = [host.frames("ethws0") for host in hosts]
    ends[0].send(frame(100))
    assert ends[1].receive() == frame(100)


def sent_nothing(peer: Peer) -> None:
    """After the handshake."""


def sent_half_a_header(peer: Peer) -> None:
    """Of a frame."""
    peer.say(b"\x82")


def sent_half_a_frame(peer: Peer) -> None:
    """Its header, and not all of what that promised."""
    peer.say(masked(0x82, frame(1000))[:500])


@pytest.mark.parametrize("start", [sent_nothing, sent_half_a_header, sent_half_a_frame])
def test_a_client_that_falls_silent_is_left(host: Host, start: Callable[[Peer], None]) -> None:
    server = host.etherws("server", "--foreground", *QUICK)
    server.says("listening")
    peer = Peer(host).upgraded()
    start(peer)
    server.says("left ethws0 after ")
    assert ": nothing heard for 0." in server.output
    # It was asked first, and is told at last.
    kinds = set()
    while (got := peer.frame())[0] != CLOSE:
        kinds.add(got[0])
    assert PING in kinds


def test_a_server_that_falls_silent_is_left(host: Host) -> None:
    def talk(connection: socket.socket, request: bytes) -> None:
        connection.sendall(switching(request))
        while connection.recv(4096):
            pass

    with serve(host, talk) as port:
        client = host.etherws("client", "--foreground", f"ws://127.0.0.1:{port}/", *QUICK, *EAGER)
        client.says("nothing heard for 0.", times=2)
        client.stop()


SIGNS: dict[str, Callable[[bytes], bytes]] = {
    "its pong": lambda payload: masked(PONG, payload),
    "another pong": lambda _: masked(PONG, b"unasked"),
    "a ping": lambda _: masked(PING, b""),
    "text": lambda _: masked(0x81, b"hello"),
    "a frame": lambda _: masked(0x82, frame(60)),
    "a byte of a frame": lambda _: b"",
}


@pytest.mark.parametrize("case", SIGNS)
def test_whatever_comes_is_a_sign_of_life(host: Host, case: str) -> None:
    server = host.etherws("server", "--foreground", *LENIENT)
    server.says("listening")
    peer = Peer(host).upgraded()
    slow = iter(masked(0x82, frame(60)))
    pings = 0
    while pings < 8:
        kind, payload = peer.frame()
        assert kind != CLOSE
        if kind == PING:
            pings += 1
            peer.say(SIGNS[case](payload) or bytes([next(slow)]))
    assert "left" not in server.output


def test_a_client_that_reads_nothing_lives_as_long_as_it_speaks(host: Host) -> None:
    server = host.etherws("server", "--foreground", "--ping-interval", "200ms", "--ping-timeout", "2s")
    server.says("listening")
    peer = Peer(host).upgraded()
    frames, pause = host.frames("ethws0"), threading.Event()
    begin = monotonic()
    # Several times longer than it might be silent, or its kernel might leave anything unacknowledged.
    while monotonic() < begin + 7:
        for seed in range(50):
            frames.send(frame(1514, seed=seed))
        peer.say(masked(PING, b"still here"))
        pause.wait(0.02)
    assert "left" not in server.output, server.output
    peer.say(masked(PING, b"and now"))
    while peer.frame() != (PONG, b"and now"):
        pass


def test_a_client_that_reads_nothing_and_says_nothing_is_left(host: Host) -> None:
    server = host.etherws("server", "--foreground", *QUICK)
    server.says("listening")
    peer = Peer(host).upgraded()
    frames = host.frames("ethws0")

    def left() -> bool:
        for seed in range(50):
            frames.send(frame(1514, seed=seed))
        return "left ethws0" in server.output

    until(left, "the server to give up")
    assert "nothing heard for" in server.output
    peer.close()


def test_what_came_while_the_server_was_stopped_counts(host: Host) -> None:
    server = host.etherws("server", "--foreground", *LENIENT)
    server.says("listening")
    peer = Peer(host).upgraded()
    server.signal(signal.SIGSTOP)
    try:
        peer.say(masked(PING, b"before"))
        threading.Event().wait(1.5)
    finally:
        server.signal(signal.SIGCONT)
    while (got := peer.frame()) != (PONG, b"before"):
        assert got[0] != CLOSE
    peer.say(masked(PING, b"after"))
    while (got := peer.frame()) != (PONG, b"after"):
        assert got[0] != CLOSE


def test_without_pings_silence_means_nothing(host: Host) -> None:
    server = host.etherws("server", "--foreground", "--ping-interval", "0", "--ping-timeout", "100ms")
    server.says("listening")
    peer, asking = Peer(host).upgraded(), host.etherws("server", "--foreground", "--port", "81", *QUICK)
    asking.says("listening")
    # In the time in which another server gives a client up.
    other = Peer(host, ("127.0.0.1", 81)).upgraded()
    while other.frame()[0] != CLOSE:
        pass
    peer.say(masked(PING, b"still here"))
    kinds = set()
    while (got := peer.frame()) != (PONG, b"still here"):
        kinds.add(got[0])
    assert PING not in kinds
    assert "left" not in server.output


def test_gunicorn_pings_as_the_environment_says(host: Host) -> None:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    from tests.lab.servers import gunicorn

    env = {"ETHERWS_SERVER_PING_INTERVAL": "300ms", "ETHERWS_SERVER_PING_TIMEOUT": "0.3"}
    running = gunicorn(host, "-b", "127.0.0.1:80", **env)
    running.says("Booting worker")
    until(lambda: "ethws0" in host.links(), "ethws0 to appear")
    peer = Peer(host).upgraded()
    kinds: list[int] = []
    while not kinds or kinds[-1] != CLOSE:
        kinds.append(peer.frame()[0])
    assert PING in kinds


def settle(host: Host) -> None:
    """Wait until eth0 has its IPv6 address for good, which is news too."""

    def settled() -> bool:
        with host.netlink() as route:
            index = route.link_lookup(ifname="eth0")[0]
            flags = [address.get("flags") for address in route.get_addr(index=index, family=socket.AF_INET6)]
        return bool(flags) and not any(each & IFA_F_TENTATIVE for each in flags)

    if os.path.exists("/proc/net/if_inet6"):
        until(settled, "the IPv6 address of eth0")


def hang_up(client: Process, _: Host) -> None:
    """As kill -HUP."""
    client.signal(signal.SIGHUP)


def plug_in(_: Process, host: Host) -> None:
    """Take the link down and up."""
    host.set_link("eth0", state="down")
    host.set_link("eth0", state="up")


def move(_: Process, host: Host) -> None:
    """Get one more address."""
    host.add_address("eth0", "192.0.2.3/24")


def move_6(_: Process, host: Host) -> None:
    """And one of IPv6."""
    host.add_address("lo", "2001:db8::1/128")


@pytest.mark.parametrize("wake", [hang_up, plug_in, move, move_6])
def test_a_waiting_client_is_woken(hosts: tuple[Host, Host], wake: Callable[[Process, Host], None]) -> None:
    one, other = hosts
    settle(other)
    client = other.etherws("client", "--foreground", "--debug", "ws://192.0.2.1/", *IDLE)
    client.says("cannot connect to ws://192.0.2.1:80: Connection refused; is it running")
    until(lambda: other.links()["ethws0"]["flags"] & 1, "ethws0 to be up")
    one.etherws("server", "--foreground").says("listening")
    wake(client, other)
    client.says("connected to ws")


def test_a_background_client_is_woken_too(hosts: tuple[Host, Host], tmp_path: os.PathLike[str]) -> None:
    one, other = hosts
    settle(other)
    pidfile = os.path.join(tmp_path, "pid")
    assert other.etherws("client", "ws://192.0.2.1/", "--pidfile", pidfile, *IDLE).ends() == 0
    with open(pidfile) as file:
        pid = int(file.read())
    try:
        server = one.etherws("server", "--foreground")
        server.says("listening")
        os.kill(pid, signal.SIGHUP)
        server.says("joined on ethws0")
        os.kill(pid, signal.SIGHUP)
        ends = [host.frames("ethws0") for host in hosts]
        ends[0].send(frame(100))
        assert ends[1].receive() == frame(100)
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not os.path.exists(pidfile), "the client to end")


def test_nothing_is_dropped_when_a_connected_client_is_woken(hosts: tuple[Host, Host]) -> None:
    server, client = connect(hosts, "--ping-timeout", "1s")
    ends = [host.frames("ethws0") for host in hosts]
    move(client, hosts[1])
    client.says("the machine's network has changed")
    hang_up(client, hosts[1])
    for seed in range(30):
        ends[0].send(frame(100, seed=seed))
        assert ends[1].receive() == frame(100, seed=seed)
        threading.Event().wait(0.05)
    assert "lost" not in client.output
    assert "left" not in server.output


@pytest.mark.parametrize("timeout", ["300ms", "1h"])
def test_a_dead_connection_is_noticed_at_once_when_the_network_changes(hosts: tuple[Host, Host], timeout: str) -> None:
    settle(hosts[1])
    _, client = connect(hosts, "--ping-interval", "1h", "--ping-timeout", timeout)
    # What the server's kernel says on its new interface would be a sign of life.
    silence(hosts[1])
    move(client, hosts[1])
    client.says("lost ws://192.0.2.1:80: nothing heard for ")


def test_a_client_that_roams_comes_back_at_once(hosts: tuple[Host, Host]) -> None:
    server, client = connect(hosts, "--ping-interval", "1h", "--ping-timeout", "1h")
    client.stop()
    client = hosts[1].etherws("client", "--foreground", "ws://192.0.2.1/", *IDLE)
    client.says("connected")
    with hosts[1].netlink() as route:
        index = route.link_lookup(ifname="eth0")[0]
        route.addr("del", index=index, address="192.0.2.2", prefixlen=24)
        route.addr("add", index=index, address="192.0.2.3", prefixlen=24)
    client.says("lost ws://192.0.2.1:80: the address that it came from is gone; trying again")
    client.says("connected", times=2)
    server.says("replaced by another connection of this client")


def test_what_its_own_interface_does_to_its_bridge_does_not_wake_a_client(hosts: tuple[Host, Host]) -> None:
    one, other = hosts
    settle(other)
    client = other.etherws("client", "--foreground", "--debug", "ws://192.0.2.1/", "--bridge", "br0", *IDLE)
    client.says("cannot connect")
    for name in ("br0", "ethws0"):
        other.set_link(name, state="down")
        other.set_link(name, state="up")
    other.add_address("ethws0", "198.51.100.1/24")
    one.etherws("server", "--foreground").says("listening")
    # The machine's address may be on the bridge, beside its uplink.
    other.add_address("br0", "198.51.100.2/24")
    client.says("connected to ws")
    assert client.output.count("the machine's network has changed") == 1
    assert "has changed: 198.51.100.2/24 of br0 is there" in client.output


def test_a_client_whose_uplink_is_in_its_bridge_notices_what_changes_there(hosts: tuple[Host, Host]) -> None:
    """As with Proxmox and libvirt. A lease that is renewed is no change."""
    one, other = hosts
    one.etherws("server", "--foreground").says("listening")
    # Without link-local addresses, whose coming would be news.
    other.bridge("br0")
    for name in ("br0", "eth0"):
        other.command(f"ip link set {name} addrgenmode none")
    other.command("ip addr flush dev eth0")
    other.command("ip link set eth0 master br0")
    other.command("ip addr add 192.0.2.2/24 dev br0 valid_lft 3600 preferred_lft 3600")
    client = other.etherws(
        "client", "--foreground", "--debug", "ws://192.0.2.1/", "--bridge", "br0", "--ping-interval", "1h", *IDLE
    )
    client.says("connected to ws")
    said = client.output.count("has changed")
    for seconds in (3600, 7200, 1800):
        other.command(f"ip addr change 192.0.2.2/24 dev br0 valid_lft {seconds} preferred_lft {seconds}")
    other.command("ip addr add 192.0.2.3/24 dev br0")
    client.says("has changed: 192.0.2.3/24 of br0 is there")
    assert client.output.count("has changed") == said + 1
    assert "lost" not in client.output
    other.command("ip addr del 192.0.2.2/24 dev br0")
    client.says("lost ws://192.0.2.1:80: the address that it came from is gone")
    # The kernel has removed the second with the first.
    other.command("ip addr add 192.0.2.4/24 dev br0")
    client.says("connected to ws", times=2)


def test_servers_are_tried_in_order(host: Host) -> None:
    def start(number: int) -> Process:
        arguments = ("--address", "127.0.0.1", "--port", str(8000 + number), "--device", f"server{number}")
        server = host.etherws("server", "--foreground", *arguments)
        server.says("listening")
        return server

    uris = [f"ws://127.0.0.1:800{number}/" for number in (1, 2)]
    client = host.etherws("client", "--foreground", *EAGER, env={"ETHERWS_CLIENT_URI": " ".join(uris)})
    client.says("cannot connect to ws://127.0.0.1:8001: Connection refused")
    client.says("; nor to ws://127.0.0.1:8002: Connection refused")
    second = start(2)
    client.says("connected to ws://127.0.0.1:8002")
    first = start(1)
    second.stop()
    client.says("lost ws://127.0.0.1:8002")
    client.says("connected to ws://127.0.0.1:8001")
    second = start(2)
    first.stop()
    client.says("connected to ws://127.0.0.1:8002", times=2)
    second.stop()
    client.stop()


def test_servers_are_named_by_options_of_their_own(host: Host) -> None:
    host.etherws("server", "--foreground").says("listening")
    client = host.etherws(
        "client", "--foreground", "--uri", "wss://127.0.0.1:1/", "--uri", "ws://127.0.0.1/", "--device", "c%d"
    )
    client.says("c0 is up, connected to ws://127.0.0.1:80")
    client = host.etherws("client", "ws://127.0.0.1/", "--uri", "ws://127.0.0.1/", "--uri", "ws://127.0.0.2/")
    assert client.ends() != 0
    assert "to name several use only --uri" in client.output


def carrier(host: Host, name: str = "ethws0") -> object:
    """Whether an interface has its carrier, as its neighbours see it: IFLA_CARRIER, IFLA_OPERSTATE. None without it."""
    link = host.links().get(name)
    return link and (link.get("carrier"), link.get("operstate"))


ON, OFF = [(1, "UNKNOWN"), (1, "UP")], [(0, "DOWN")]


def test_an_interface_without_a_link_loses_its_carrier_until_there_is_one(hosts: tuple[Host, Host]) -> None:
    one, other = hosts
    options = ("--foreground", "--carrier-timeout", "400ms")
    client = other.etherws("client", "ws://192.0.2.1/", *EAGER, *options)
    # On a busy machine the timeout may be over before anybody looks.
    until(lambda: carrier(other) in ON or "carrier off" in client.output, "the client's interface to have a carrier")
    client.says("cannot connect")
    until(lambda: carrier(other) in OFF, "the client's carrier to go at first")
    server = one.etherws("server", *options)
    server.says("listening")
    for times in (1, 2):
        server.says("joined", times=times)
        until(lambda: carrier(other) in ON, "the client's carrier to come")
        until(lambda: carrier(one) in ON, "the server's carrier to come")
        ends = [host.frames("ethws0") for host in hosts]
        ends[0].send(frame(100, seed=times))
        assert ends[1].receive() == frame(100, seed=times)
        if times == 1:
            client.stop()
            until(lambda: carrier(one) in OFF, "the server's carrier to go")
            client = other.etherws("client", "ws://192.0.2.1/", *EAGER, *options)
    server.stop()
    until(lambda: carrier(other) in OFF, "the client's carrier to go again")


def test_a_short_loss_leaves_the_carrier_alone(hosts: tuple[Host, Host]) -> None:
    one, other = hosts
    server, client = connect(hosts, "--carrier-timeout", "1h")
    server.stop()
    client.says("lost")
    assert carrier(other) in ON
    again = one.etherws("server", "--foreground")
    again.says("joined")
    client.says("connected", times=2)
    assert "carrier off" not in client.output


@pytest.mark.parametrize("number", [tap_carrier.TUNSETCARRIER, 0x400454FF], ids=["this kernel", "one that cannot"])
def test_the_carrier_is_set_where_the_kernel_can(host: Host, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap_carrier, "TUNSETCARRIER", number)
    with host.namespace.inside(), contextlib.closing(Tap("carrier0")) as tap:
        assert carrier(host, "carrier0") in ON
        tap.start_carrier_timeout(0)
        tap.start_carrier_timeout(0.01)
        tap.start_carrier_timeout(1000)
        with gevent.Timeout(PATIENCE):
            while carrier(host, "carrier0") in ON and number == tap_carrier.TUNSETCARRIER != 0x400454FF:
                gevent.sleep(0.01)
        tap.begin(offload=Offload.NONE)
        assert carrier(host, "carrier0") in ON
