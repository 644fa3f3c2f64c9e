"""What a client's virtio headers may have the kernel do behind the filters: to other machines on real bridges."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from etherws.access import passwd
from etherws.tunnel.udp_super_frames import cut
from tests.lab.frames import BROADCAST, PEER, SOURCE, frame
from tests.lab.hosts import PATIENCE, Frames, Host, Process, until
from tests.lab.ip import ICMPV6, TAG, balanced, checksum, icmpv6, ipv4, ipv6, tcp, udp
from tests.lab.offloads import without_offloads
from tests.lab.peer import VERSION_2, Peer, basic, masked, request
from tests.lab.records import record, vnet
from tests.lab.tunnels import add_addresses
from tests.lab.udp import super_frame

POLICY = '[default]\ndrop = ["dhcp-server", "router-advertisement"]\n'

#: To a machine that the bridge does not know, from the client.
TO_ONE = PEER + SOURCE

#: The last frame of a test, which passes.
LAST = frame(77, to=BROADCAST)


class Lan:
    """A server whose policy guards the LAN, a client of version 2 made of a bare socket, and another machine, whose
    network card can do nothing by itself: the server's kernel finishes what goes to it."""

    def __init__(self, server: Host, machine: Host, folder: Path, features: str = "v2", policy: str = "") -> None:
        policy = POLICY + policy
        (folder / "policy.toml").write_text(policy)
        passwd.set_password(folder / "passwords", "mallory", "secret", cost=4)
        self.process: Process = server.etherws(
            "server", "--foreground", "--address", "127.0.0.1", "--bridge", "br0", "--policy",
            str(folder / "policy.toml"), "--htpasswd", str(folder / "passwords"),
        )  # fmt: skip
        self.process.says("listening")
        server.namespace.cable("vnet0", machine.namespace, "eth0")
        without_offloads(server.namespace, "vnet0")
        with server.netlink() as route:
            bridge, port = (route.link_lookup(ifname=name)[0] for name in ("br0", "vnet0"))
            route.link("set", index=port, state="up", master=bridge)
        machine.set_link("eth0", state="up")
        # Before that the bridge sends nothing there.
        until(lambda: server.links()["vnet0"].get("operstate") == "UP", "the cable to have a carrier")
        self.heard: Frames = machine.frames("eth0")
        self.peer = Peer(server)
        offer = {**VERSION_2, "Etherws_Features": features}
        self.peer.say(request(Authorization=basic("mallory:secret"), **offer))
        head = self.peer.head()
        assert b"Sec-WebSocket-Protocol: etherws.v2" in head
        #: Whether UDP super-frames were agreed on.
        self.uso = b", uso, proof" in head

    def say(self, *packets: bytes) -> None:
        """Have the client send these packets, and the last frame."""
        self.peer.say(masked(0x82, b"".join(map(record, [*packets, bytes(10) + LAST]))))

    def arrived(self) -> list[bytes]:
        """What reaches the machine of what the client sends, up to the last frame."""
        found = []
        while (one := self.heard.receive()) != LAST:
            found.append(one)
        return found

    def left(self) -> str:
        """The log's line when the client leaves."""
        self.peer.say(masked(0x88, b"\x03\xe8"))
        return self.process.says("left ethws0").splitlines()[-1]


def finished(packet: bytes) -> bytes:
    """The frame of a packet whose checksum is begun, as a kernel finishes it."""
    start, frame = int.from_bytes(packet[6:8], "little"), packet[10:]
    return frame[: start + 6] + (checksum(frame[start:]) or 0xFFFF).to_bytes(2, "big") + frame[start + 8 :]


def without_tag(frame: bytes) -> bytes:
    """The frame as a packet socket shows it: that has the tag beside it."""
    return frame[:12] + frame[16:] if frame[12:16] == TAG else frame


@pytest.fixture
def lan(host: Host, tmp_path: Path) -> Iterator[Lan]:
    machine = Host()
    try:
        yield Lan(host, machine, tmp_path)
    finally:
        machine.close()


def test_a_checksum_cannot_become_a_dhcp_servers_port(lan: Lan) -> None:
    # The place of the checksum is the receiver's port, and the checksum is 68.
    data = balanced(BROADCAST + SOURCE + ipv4(17, udp(67, 2000)), 34, 68, 50)
    lan.say(vnet(1, start=34, offset=2) + data)
    assert lan.arrived() == []
    assert "dropped 1 dhcp-server" in lan.left()


def test_a_checksum_cannot_become_a_router_advertisement(lan: Lan) -> None:
    # The place of the checksum is the type and the code of a neighbour advertisement, and the checksum is 0x8600.
    data = balanced(BROADCAST + SOURCE + ipv6(ICMPV6, icmpv6(136)), 54, 0x8600, 62)
    lan.say(vnet(1, start=54, offset=0) + data)
    assert lan.arrived() == []
    assert "dropped 1 router-advertisement" in lan.left()


@pytest.mark.parametrize(("start", "offset"), [(34, 4), (34, 0), (14, 20), (42, 6), (50, 0), (34, 6)])
def test_a_checksum_changes_no_more_than_its_own_two_bytes(lan: Lan, start: int, offset: int) -> None:
    data = BROADCAST + SOURCE + ipv4(17, udp(1000, 2000, b"\xa5" * 33))
    lan.say(vnet(1, start=start, offset=offset) + data)
    (found,) = lan.arrived()
    changed = {at for at, (before, after) in enumerate(zip(data, found, strict=True)) if before != after}
    assert changed
    assert changed <= {start + offset, start + offset + 1}
    assert "dropped" not in lan.left()


@pytest.mark.parametrize(
    "packet",
    [
        # Cutting would write a sequence number, flags and a checksum where the UDP header is.
        vnet(1, 1, 54, 100, 34, 16) + TO_ONE + ipv4(17, udp(1000, 2000, bytes(3000))),
        vnet(1, 1, 54, 100, 30, 16) + TO_ONE + ipv4(6, tcp(bytes(3000))),
        vnet(1, 4, 54, 100, 34, 16) + TO_ONE + ipv4(6, tcp(bytes(3000))),
        # One frame to everybody would become 400.
        vnet(1, 1, 54, 8, 34, 16) + BROADCAST + SOURCE + ipv4(6, tcp(bytes(3000))),
    ],
    ids=["UDP", "elsewhere", "the other IP", "to a group"],
)
def test_a_super_frame_is_what_its_header_says_or_is_dropped(lan: Lan, packet: bytes) -> None:
    lan.say(packet)
    assert lan.arrived() == []
    assert "dropped 1 super-frame" in lan.left()


def test_a_kernel_cuts_udp_super_frames_as_we_do(host: Host, tmp_path: Path) -> None:
    machine = Host()
    try:
        lan = Lan(host, machine, tmp_path, "v2, uso")
        if not lan.uso:
            pytest.skip("this kernel takes no UDP super-frames")
        data = bytes(at * 7 & 0xFF for at in range(20_000))
        for packet in (
            super_frame(data, 1400, macs=TO_ONE),
            super_frame(data, 512, macs=TO_ONE, identification=0xFFF0),
            super_frame(data, 1000, macs=TO_ONE, version=6),
            super_frame(data[:128], 1, macs=TO_ONE),
            super_frame(data[:1401], 1400, macs=TO_ONE, more=b"\1\1\1\0"),
            super_frame(data[:10_000], 1000, macs=TO_ONE, tags=TAG),
            # Cut before the kernel gets it.
            super_frame(data, 1400, macs=BROADCAST + SOURCE),
        ):
            # One after the other: the socket that hears them has little room.
            lan.say(packet)
            assert list(map(without_tag, lan.arrived())) == [without_tag(finished(each)) for each in cut(packet)]
    finally:
        machine.close()


def test_a_limit_to_broadcasts_counts_each_datagram(host: Host, tmp_path: Path) -> None:
    machine = Host()
    try:
        lan = Lan(host, machine, tmp_path, "v2, uso", "group-rate = 1\n")
        if not lan.uso:
            pytest.skip("this kernel takes no UDP super-frames")
        lan.say(super_frame(bytes(12_800), 100, macs=BROADCAST + SOURCE))
        line = lan.left()
        dropped = re.search(r"(\d+) group-rate", line)
        assert dropped, line
        # Some may come at once.
        assert int(dropped[1]) > 100
    finally:
        machine.close()


def test_a_udp_super_frame_is_what_its_header_says_or_is_dropped(host: Host, tmp_path: Path) -> None:
    machine = Host()
    try:
        lan = Lan(host, machine, tmp_path, "v2, uso")
        if not lan.uso:
            pytest.skip("this kernel takes no UDP super-frames")
        good = super_frame(bytes(5000), 1000, macs=TO_ONE)
        bad = [
            # No checksum; lengths of UDP and of IP; a fragment; a group of datagrams that is one.
            good[:50] + bytes(2) + good[52:],
            good[:48] + b"\0\x08" + good[50:],
            good[:26] + b"\0\x30" + good[28:],
            good[:30] + b"\x20\0" + good[32:],
            super_frame(bytes(1000), 1000, macs=TO_ONE),
            super_frame(bytes(129), 1, macs=TO_ONE),
        ]
        lan.say(*bad)
        assert lan.arrived() == []
        assert f"dropped {len(bad)} super-frame" in lan.left()
    finally:
        machine.close()


def test_a_dhcp_servers_message_cannot_hide_behind_another_datagram(host: Host, tmp_path: Path) -> None:
    machine = Host()
    try:
        lan = Lan(host, machine, tmp_path, "v2, uso")
        if not lan.uso:
            pytest.skip("this kernel takes no UDP super-frames")
        # To a relay: only the first byte of a message tells who speaks. The first datagram is a client's.
        relayed, relayed_v6 = (
            super_frame(b"".join(bytes([kind]) + bytes(299) for kind in kinds), 300, macs=TO_ONE, version=version)
            for kinds, version in (((1, 2, 2), 4), ((12, 13), 6))
        )
        lan.say(relayed[:46] + b"\0\x43" + relayed[48:], relayed_v6[:66] + b"\x02\x23" + relayed_v6[68:])
        assert [each[42:43] + each[62:63] for each in lan.arrived()] == [b"\x01\0", b"\0\x0c"]
        assert "dropped 3 dhcp-server" in lan.left()
    finally:
        machine.close()


def test_a_udp_super_frame_that_was_not_agreed_on_ends_the_connection(lan: Lan) -> None:
    assert not lan.uso
    lan.say(super_frame(bytes(5000), 1000, macs=TO_ONE))
    assert "record of GSO type 0x5, which was not agreed on" in lan.process.says("left ethws0")


def test_a_checksum_that_the_client_calls_verified_is_verified_here(lan: Lan, host: Host) -> None:
    add_addresses(host, "br0", "10.0.0.2/24")
    taker = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taker.settimeout(PATIENCE)
    taker.bind(("10.0.0.2", 2000))
    to_bridge = bytes.fromhex(host.links()["br0"].get("address").replace(":", ""))
    wrong, right = (
        to_bridge + SOURCE + ipv4(17, udp(1000, 2000, payload)[:6] + change + payload)
        for payload, change in ((b"wrong", b"\x12\x34"), (b"right", bytes(2)))
    )
    # A checksum of 0 is none.
    lan.say(vnet(2) + wrong, vnet(2) + right)
    assert taker.recv(100) == b"right"


def test_a_length_of_headers_cannot_hide_an_ipv6_header(lan: Lan) -> None:
    # In a long frame whose first piece ends before the IPv6 header, the kernel's filter reads that header elsewhere.
    long = bytes(5000)
    for size in (14, 18, 20, 5000):
        for flags in (0, 2):
            lan.say(
                vnet(flags, 0, size) + BROADCAST + SOURCE + ipv6(ICMPV6, icmpv6(134) + long),
                vnet(flags, 0, size) + BROADCAST + SOURCE + ipv6(17, udp(547, 546, long)),
            )
    left = lan.left()
    assert "dropped 8 dhcp-server, 8 router-advertisement" in left, left
