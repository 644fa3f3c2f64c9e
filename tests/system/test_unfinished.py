"""What a client's virtio headers may have the kernel do behind the filters: to other machines on real bridges."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from etherws.access import passwd
from tests.lab.frames import BROADCAST, SOURCE, frame
from tests.lab.hosts import PATIENCE, Frames, Host, Process
from tests.lab.ip import ICMPV6, balanced, icmpv6, ipv4, ipv6, tcp, udp
from tests.lab.offloads import without_offloads
from tests.lab.peer import VERSION_2, Peer, basic, masked, request
from tests.lab.records import record, vnet
from tests.lab.tunnels import add_addresses

POLICY = '[default]\ndrop = ["dhcp-server", "router-advertisement"]\n'

#: The last frame of a test, which passes.
LAST = frame(77, to=BROADCAST)


class Lan:
    """A server whose policy guards the LAN, a client of version 2 made of a bare socket, and another machine, whose
    network card can do nothing by itself: the server's kernel finishes what goes to it."""

    def __init__(self, server: Host, machine: Host, folder: Path) -> None:
        (folder / "policy.toml").write_text(POLICY)
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
        self.heard: Frames = machine.frames("eth0")
        self.peer = Peer(server)
        self.peer.say(request(Authorization=basic("mallory:secret"), **VERSION_2))
        assert b"Sec-WebSocket-Protocol: etherws.v2" in self.peer.head()

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
        vnet(1, 1, 54, 100, 34, 16) + BROADCAST[:5] + b"\xfe" + SOURCE + ipv4(17, udp(1000, 2000, bytes(3000))),
        vnet(1, 1, 54, 100, 30, 16) + BROADCAST[:5] + b"\xfe" + SOURCE + ipv4(6, tcp(bytes(3000))),
        vnet(1, 4, 54, 100, 34, 16) + BROADCAST[:5] + b"\xfe" + SOURCE + ipv4(6, tcp(bytes(3000))),
        # One frame to everybody would become 400.
        vnet(1, 1, 54, 8, 34, 16) + BROADCAST + SOURCE + ipv4(6, tcp(bytes(3000))),
    ],
    ids=["UDP", "elsewhere", "the other IP", "to a group"],
)
def test_a_super_frame_is_what_its_header_says_or_is_dropped(lan: Lan, packet: bytes) -> None:
    lan.say(packet)
    assert lan.arrived() == []
    assert "dropped 1 super-frame" in lan.left()


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
