"""Version 2 on real devices: super-frames and unfinished checksums, and every byte intact, by hash."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from tests.lab.frames import BROADCAST, SOURCE, frame
from tests.lab.hosts import PATIENCE, SOL_PACKET, Host, Process, until
from tests.lab.ip import IPV4, SERVICE_TAG, TAG, TCP, UDP, checksum, ipv4, ipv6, tcp, udp
from tests.lab.offloads import without_offloads
from tests.lab.peer import VERSION_2, Peer, masked, request
from tests.lab.pki import Certificate
from tests.lab.records import BAD, record, vnet
from tests.lab.tunnels import add_addresses, start, stream

MIB = 1 << 20

#: include/uapi/linux/if_packet.h
PACKET_VNET_HDR = 15


def datagrams(one: Host, other: Host, address: str) -> None:
    """UDP of all sizes, up to 64 KB in fragments, arrives intact."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    taker, sender = other.socket(family, socket.SOCK_DGRAM), one.socket(family, socket.SOCK_DGRAM)
    taker.settimeout(PATIENCE)
    taker.bind((address, 0))
    for size in (0, 1, 1400, 1472, 1473, 9000, 60_000):
        payload = random.Random(size).randbytes(size)
        sender.sendto(payload, taker.getsockname())
        assert taker.recv(65_536) == payload, size


def exchange(one: Host, other: Host, first: str, second: str, size: int = 8 * MIB) -> None:
    """TCP both ways, and UDP, between two machines' addresses."""
    for sender, receiver, address in ((one, other, second), (other, one, first)):
        sent, got = stream(sender, receiver, address, size)
        assert sent == got, address
        datagrams(sender, receiver, address)


def lan(hosts: tuple[Host, Host], name: str = "ethws0") -> None:
    """Addresses 10.0.0.1, .2 and fd00::1, ::2."""
    for number, host in enumerate(hosts, 1):
        add_addresses(host, name, f"10.0.0.{number}/24", f"fd00::{number}/64")


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_streams_arrive_intact(hosts: tuple[Host, Host], certificate: Certificate, scheme: str) -> None:
    start(hosts, certificate if scheme == "wss" else None)
    lan(hosts)
    exchange(*hosts, "10.0.0.1", "10.0.0.2", 16 * MIB)
    exchange(*hosts, "fd00::1", "fd00::2", 16 * MIB)


def test_super_frames_pass_between_etherws_and_etherws(hosts: tuple[Host, Host]) -> None:
    start(hosts)
    lan(hosts)
    before = hosts[1].links()["ethws0"].get("stats64")["rx_packets"]
    sent, got = stream(*hosts, "10.0.0.2", 32 * MIB)
    assert sent == got
    packets = hosts[1].links()["ethws0"].get("stats64")["rx_packets"] - before
    # 23,000 full frames, were they cut.
    assert packets < 10_000


@pytest.mark.parametrize("side", ["server", "client"])
def test_either_side_can_keep_to_version_1(hosts: tuple[Host, Host], side: str) -> None:
    server, client = hosts
    options = {"server": [], "client": [], side: ["--wire", "1"]}
    serving = server.etherws("server", "--foreground", *options["server"])
    serving.says("listening")
    client.etherws("client", "--foreground", "ws://192.0.2.1/", *options["client"]).says("connected")
    lan(hosts)
    exchange(*hosts, "10.0.0.1", "10.0.0.2")
    exchange(*hosts, "fd00::1", "fd00::2")


def test_jumbo_frames_arrive_intact(hosts: tuple[Host, Host]) -> None:
    start(hosts, None, "--mtu", "9000")
    lan(hosts)
    exchange(*hosts, "10.0.0.1", "10.0.0.2")
    exchange(*hosts, "fd00::1", "fd00::2")


@pytest.mark.vm
def test_vlans_arrive_intact(hosts: tuple[Host, Host]) -> None:
    start(hosts)
    for number, host in enumerate(hosts, 1):
        host.command("ip link add link ethws0 name lan5 type vlan id 5")
        host.set_link("lan5", state="up")
        add_addresses(host, "lan5", f"10.5.0.{number}/24", f"fd05::{number}/64")
    exchange(*hosts, "10.5.0.1", "10.5.0.2")
    exchange(*hosts, "fd05::1", "fd05::2")


@pytest.fixture
def machines(hosts: tuple[Host, Host]) -> Iterator[tuple[Host, Host]]:
    """Two virtual machines, each at a bridge of its hypervisor, as `eth0`."""
    guests = Host(), Host()
    try:
        for hypervisor, guest in zip(hosts, guests, strict=True):
            hypervisor.namespace.cable("vnet0", guest.namespace, "eth0")
            hypervisor.set_link("vnet0", state="up")
            guest.set_link("eth0", state="up")
        yield guests
    finally:
        for guest in guests:
            guest.close()


def test_tunnels_inside_arrive_intact(hosts: tuple[Host, Host], machines: tuple[Host, Host]) -> None:
    """The unfinished checksums of a VXLAN are those of the frames in it."""
    start(hosts)
    for hypervisor in hosts:
        hypervisor.bridge("br0", "vnet0", "ethws0")
    lan(machines, "eth0")
    for number, guest in enumerate(machines, 1):
        for vni, options in ((7, ""), (8, "udpcsum")):
            guest.command(
                f"ip link add vx{vni} type vxlan id {vni} remote 10.0.0.{3 - number} dstport {4780 + vni} dev eth0"
                f" {options}"
            )
            guest.set_link(f"vx{vni}", state="up")
            add_addresses(guest, f"vx{vni}", f"10.{vni}.0.{number}/24", f"fd0{vni}::{number}/64")
    for vni in (7, 8):
        exchange(*machines, f"10.{vni}.0.1", f"10.{vni}.0.2", 4 * MIB)
        exchange(*machines, f"fd0{vni}::1", f"fd0{vni}::2", 4 * MIB)


def test_options_and_extension_headers_arrive_intact(hosts: tuple[Host, Host], machines: tuple[Host, Host]) -> None:
    start(hosts)
    for hypervisor in hosts:
        hypervisor.bridge("br0", "vnet0", "ethws0")
        # What arrives is verified: its checksum is finished.
        without_offloads(hypervisor.namespace, "vnet0")
    lan(machines, "eth0")
    one, other = machines
    # RFC 791: three of No Operation and an End; RFC 8200, sections 4.3 and 4.6: four bytes of padding.
    padding = bytes((0, 0, 1, 4, 0, 0, 0, 0))
    for to, level, name, value in (
        ("10.0.0.2", socket.IPPROTO_IP, socket.IP_OPTIONS, b"\1\1\1\0"),
        ("fd00::2", socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, padding),
        ("fd00::2", socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, padding),
    ):
        sent, got = stream(*machines, to, 4 * MIB, (level, name, value))
        assert sent == got, (to, name)
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        taker, sender = other.socket(family, socket.SOCK_DGRAM), one.socket(family, socket.SOCK_DGRAM)
        taker.settimeout(PATIENCE)
        taker.bind((to, 0))
        sender.setsockopt(level, name, value)
        sender.sendto(b"datagram", taker.getsockname())
        assert taker.recv(100) == b"datagram", (to, name)


@pytest.mark.parametrize("tags", [TAG, SERVICE_TAG + TAG, TAG * 3], ids=["one", "two", "three"])
def test_unfinished_frames_behind_tags_arrive_finished(
    hosts: tuple[Host, Host], machines: tuple[Host, Host], tags: bytes
) -> None:
    """As a VLAN interface of a machine makes them; this kernel may have none."""
    start(hosts)
    for hypervisor in hosts:
        hypervisor.bridge("br0", "vnet0", "ethws0")
    without_offloads(hosts[1].namespace, "vnet0")
    sender = machines[0].socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sender.bind(("eth0", 0))
    sender.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    heard = machines[1].frames("eth0")
    for packet in (ipv4(UDP, udp(1, 2, bytes(33))), ipv6(TCP, tcp())):
        head = 14 + len(tags) + (20 if packet[:2] == IPV4 else 40)
        place = 6 if packet[:2] == IPV4 else 16
        data = BROADCAST + SOURCE + tags + packet
        sender.send(vnet(1, start=head, offset=place) + data)
        wanted = checksum(data[head:]).to_bytes(2, "big")
        assert heard.receive() == data[: head + place] + wanted + data[head + place + 2 :]


@pytest.mark.parametrize("wire", ["1", "2"])
@pytest.mark.parametrize("offloads", [(True, True), (True, False), (False, True)], ids=["both", "first", "second"])
def test_bridged_machines_with_and_without_offloads(
    hosts: tuple[Host, Host], machines: tuple[Host, Host], offloads: tuple[bool, bool], wire: str
) -> None:
    start(hosts, None, "--wire", wire)
    for hypervisor, guest, has in zip(hosts, machines, offloads, strict=True):
        hypervisor.bridge("br0", "vnet0", "ethws0")
        if not has:
            without_offloads(guest.namespace, "eth0")
    lan(machines, "eth0")
    exchange(*machines, "10.0.0.1", "10.0.0.2")
    exchange(*machines, "fd00::1", "fd00::2")


def test_clients_of_both_versions_meet_on_one_bridge(network: None) -> None:
    server, *clients = machines = [Host() for _ in range(4)]
    try:
        serving = server.etherws("server", "--foreground", "--bridge", "br0")
        serving.says("listening")
        for at, (client, wire) in enumerate(zip(clients, "121", strict=True), 1):
            server.namespace.cable(f"eth{at}", client.namespace, "eth0")
            add_addresses(server, f"eth{at}", f"192.0.{at}.1/24")
            server.set_link(f"eth{at}", state="up")
            client.set_link("eth0", state="up")
            add_addresses(client, "eth0", f"192.0.{at}.2/24")
            client.etherws("client", "--foreground", f"ws://192.0.{at}.1/", "--wire", wire).says("connected")
            add_addresses(client, "ethws0", f"10.0.0.{at}/24")
        for one, other in ((1, 2), (1, 3), (2, 3)):
            exchange(clients[one - 1], clients[other - 1], f"10.0.0.{one}", f"10.0.0.{other}", 4 * MIB)
    finally:
        for machine in machines:
            machine.close()


def serving_with_address(host: Host) -> Process:
    """A server whose ethws0 is 10.0.0.1."""
    serving = host.etherws("server", "--foreground")
    serving.says("listening")
    add_addresses(host, "ethws0", "10.0.0.1/24")
    host.command("ip neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev ethws0")
    return serving


def checksum_of_syn(peer: Peer, host: Host) -> int:
    """What remains of the TCP checksum of a SYN that the peer is sent: 0 if it is right."""
    with host.namespace.inside():
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.connect_ex(("10.0.0.9", 80))
    while True:
        first, payload = peer.frame()
        if first == 0x82 and payload[12:14] == b"\x08\x00" and payload[23] == 6:
            break
    sock.close()
    segment = payload[34:]
    total: int = sum(struct.unpack(f">{len(segment) // 2}H", segment)) + 6 + len(segment)
    total += sum(struct.unpack(">4H", payload[26:34]))
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def test_a_peer_of_version_1_gets_finished_checksums_after_one_of_version_2(host: Host) -> None:
    serving = serving_with_address(host)
    two = Peer(host)
    two.say(request(Sec_WebSocket_Protocol="chat, etherws.v2", Etherws_Features="v2"))
    assert b"Sec-WebSocket-Protocol: etherws.v2" in two.head()
    two.close()
    serving.says("left ethws0")
    one = Peer(host).upgraded()
    assert checksum_of_syn(one, host) == 0


@pytest.mark.parametrize("offered", ["chat, superchat", "etherws.v22", "xetherws.v2", "ETHERWS.V2", "etherws"])
def test_no_subprotocol_is_named_that_was_not_offered_whole(host: Host, offered: str) -> None:
    serving_with_address(host)
    peer = Peer(host)
    peer.say(request(Sec_WebSocket_Protocol=offered))
    head = peer.head()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"sec-websocket-protocol" not in head.lower()
    # And so it is version 1.
    assert checksum_of_syn(peer, host) == 0


def of_version_2(host: Host) -> Peer:
    """A bare peer that announced version 2."""
    peer = Peer(host)
    peer.say(request(**VERSION_2))
    assert b"etherws.v2" in peer.head()
    return peer


def closed(peer: Peer) -> int:
    """The code of the Close that the peer is sent."""
    while (found := peer.frame())[0] != 0x88:
        pass
    return int.from_bytes(found[1][:2], "big")


def test_each_wrong_record_ends_its_connection_and_no_other(host: Host) -> None:
    serving = host.etherws("server", "--foreground", "--bridge", "br0")
    serving.says("listening")
    good = of_version_2(host)
    for what, (message, code) in BAD.items():
        peer = of_version_2(host)
        peer.say(masked(0x82, message))
        assert closed(peer) == code, what
        peer.close()
    good.say(masked(0x82, record(bytes(10) + frame(60))))
    until(lambda: host.links()["ethws0"].get("stats64")["rx_packets"] > 0, "the frame of the good one")
    assert serving.output.count("Traceback") == 0


def test_what_the_kernel_refuses_is_counted_and_ends_nothing(host: Host) -> None:
    serving = host.etherws("server", "--foreground")
    serving.says("listening")
    peer = of_version_2(host)
    ends = host.frames("ethws0")
    # A TCP super-frame that is no IP; one whose header's length the kernel does not believe.
    for packet in (
        vnet(0, 1, 60, 1448) + frame(3000),
        vnet(1, 1, 14, 0xFFFF, 2990, 8) + frame(3000, kind=b"\x08\x06"),
        vnet(1, 4, 54, 1448, 34, 16) + frame(3000, kind=b"\x08\x00"),
        # One whose TCP header is cut off, which only the kernel looks at.
        vnet(1, 1, 52, 1448, 34, 16) + bytes((2, 0)) * 6 + ipv4(TCP, tcp()[:18]),
    ):
        peer.say(masked(0x82, record(packet)))
    peer.say(masked(0x82, record(bytes(10) + frame(77))))
    while len(ends.receive()) != 77:
        pass
    peer.say(masked(0x88, b"\x03\xe8"))
    assert closed(peer) == 1000
    assert "dropped 1 EINVAL, 3 super-frame" in serving.says("left ethws0")


def test_a_message_above_the_cap_is_refused_by_its_announced_length(host: Host) -> None:
    host.etherws("server", "--foreground").says("listening")
    peer = of_version_2(host)
    peer.say(b"\x82\xff" + (MIB + 1).to_bytes(8, "big") + bytes(4))
    assert closed(peer) == 1009


def test_a_peer_that_stops_reading_loses_frames_but_no_order(host: Host) -> None:
    serving = host.etherws("server", "--foreground")
    serving.says("listening")
    peer = Peer(host).upgraded()
    ends = host.frames("ethws0")
    count = 20_000
    for at in range(count):
        ends.send(frame(1000, kind=b"\x88\xb5")[:-4] + at.to_bytes(4, "big"))
    serials = []
    done = threading.Event()

    def end() -> None:
        # Again and again: the first ones find the TAP full.
        while not done.wait(0.05):
            ends.send(frame(999, kind=b"\x88\xb6"))

    ending = threading.Thread(target=end)
    ending.start()
    while True:
        first, payload = peer.frame()
        assert first == 0x82
        if payload[12:14] == b"\x88\xb6":
            break
        if payload[12:14] == b"\x88\xb5":
            assert len(payload) == 1000
            serials.append(int.from_bytes(payload[-4:], "big"))
    done.set()
    ending.join()
    assert serials == sorted(set(serials))
    assert len(serials) < count
    peer.say(masked(0x88, b"\x03\xe8"))
    assert "queue" in serving.says("left ethws0")


def test_many_streams_at_once_through_a_narrow_path(hosts: tuple[Host, Host]) -> None:
    start(hosts)
    lan(hosts)
    hosts[1].command("tc qdisc add dev eth0 root tbf rate 100mbit burst 32kb latency 30ms")
    results: list[tuple[str, str]] = []
    threads = [
        threading.Thread(target=lambda: results.append(stream(hosts[1], hosts[0], "10.0.0.1", 3 * MIB)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * PATIENCE)
    assert len(results) == len(threads)
    assert all(sent == got for sent, got in results)


def test_a_congestion_control_can_be_named(hosts: tuple[Host, Host]) -> None:
    server, client = hosts
    server.etherws("server", "--foreground", "--congestion", "reno").says("listening")
    client.etherws("client", "--foreground", "ws://192.0.2.1/", "--congestion", "reno").says("connected")
    for host in hosts:
        listing = host.run("ss", "-tin")
        assert listing.ends() == 0
        assert " reno " in listing.output


@pytest.mark.parametrize("side", ["server", "client"])
def test_a_congestion_control_that_is_not_there_is_refused(host: Host, side: str) -> None:
    uri = ["ws://192.0.2.1/"] if side == "client" else []
    process = host.etherws(side, "--foreground", "--congestion", "warp9", *uri)
    assert process.ends() == 1
    assert "--congestion 'warp9' is not available in this kernel" in process.output
    assert "ethws0" not in host.links()
