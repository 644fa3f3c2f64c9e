"""Another machine with one of our IP addresses: probes and answers as bytes, and real machines that answer."""

from __future__ import annotations

import ipaddress
import random

import gevent
import pytest

from etherws.kernel import duplicates, packet_sockets
from etherws.kernel.duplicates import Duplicates, owner, probe
from tests.lab.hosts import PATIENCE, Host
from tests.lab.lan import index_of

FOUR, SIX = ipaddress.ip_address("10.9.0.1"), ipaddress.ip_address("fd00:9::1")
OURS = {FOUR, SIX}
MAC = bytes.fromhex("02ee00000001")


def arp(operation: int, sender: str, target: str = "0.0.0.0", mac: bytes = MAC) -> bytes:
    head = b"\xff" * 6 + mac + bytes.fromhex("0806 0001 0800 06 04") + operation.to_bytes(2, "big")
    return head + mac + ipaddress.ip_address(sender).packed + bytes(6) + ipaddress.ip_address(target).packed


def advertisement(target: str, kind: int = 136) -> bytes:
    header = bytes.fromhex("60000000 0018 3a ff") + bytes(32)
    return (
        bytes(6) + MAC + b"\x86\xdd" + header + bytes([kind, 0, 0, 0, 0, 0, 0, 0]) + ipaddress.ip_address(target).packed
    )


def test_probes_are_as_the_standards_have_them() -> None:
    assert probe(FOUR, MAC).hex() == (
        "ffffffffffff02ee00000001080600010800060400010" "2ee0000000100000000" "0000000000000a090001" + "00" * 18
    )  # fmt: skip
    frame = probe(SIX, MAC)
    assert frame[:6].hex() == "3333ff000001"
    assert ipaddress.ip_address(frame[38:54]) == ipaddress.ip_address("ff02::1:ff00:1")
    assert (frame[20], frame[21], frame[54]) == (58, 255, 135)
    assert frame[22:38] == bytes(16)
    # With the sum in its place, the sum of all is zero.
    assert packet_sockets.checksum(frame[22:54] + (24).to_bytes(4, "big") + (58).to_bytes(4, "big") + frame[54:]) == 0


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (arp(2, "10.9.0.1"), FOUR),
        (arp(1, "10.9.0.1", "10.9.0.7"), FOUR),
        # Another machine that wants to have it.
        (arp(1, "0.0.0.0", "10.9.0.1"), FOUR),
        # It asks for us, or answers somebody else.
        (arp(1, "10.9.0.2", "10.9.0.1"), None),
        (arp(2, "10.9.0.2", "10.9.0.1"), None),
        (arp(9, "10.9.0.1"), None),
        (arp(2, "10.9.0.1")[:41], None),
        (arp(2, "10.9.0.1").replace(b"\x08\x00\x06\x04", b"\x08\x00\x06\x05"), None),
        (advertisement("fd00:9::1"), SIX),
        (advertisement("fd00:9::2"), None),
        (advertisement("fd00:9::1", 135), None),
        (advertisement("fd00:9::1")[:77], None),
        (b"", None),
        (bytes(60), None),
    ],
)
def test_the_owner_of_an_address_is_found(frame: bytes, expected: object) -> None:
    assert owner(frame, OURS) == ((expected, MAC.hex(":")) if expected else None)


def test_no_frame_is_an_error() -> None:
    chance = random.Random(1)
    for sample in (arp(2, "10.9.0.1"), advertisement("fd00:9::1")):
        for _ in range(2000):
            frame = bytearray(sample[: chance.randrange(len(sample) + 1)])
            for _ in range(chance.randrange(4)):
                if frame:
                    frame[chance.randrange(len(frame))] = chance.randrange(256)
            owner(bytes(frame), OURS)


def test_machines_that_have_our_addresses_are_said_once(
    lan: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "TIMES", (0.0, 0.0))
    monkeypatch.setattr(duplicates, "LISTEN", 0.1)
    monkeypatch.setattr(duplicates, "PAUSE", 0.0)
    # The far end answers for all of this one's: they are of the same machine, by other addresses.
    for number, name in enumerate(("far-port", "br0")):
        lan.command(f"ip addr add 10.9.0.1/24 dev {name}")
        lan.command(f"ip addr add fd00:9::1/64 dev {name} nodad")
        lan.command(f"ip link set {name} up")
        assert number < 2
    with lan.namespace.inside(), gevent.Timeout(PATIENCE):
        looking = Duplicates(("10.9.0.1/24", "fd00:9::1/64", "10.9.0.9/24"), lambda: index_of(lan, "br0"))
        for _ in range(2):
            looking.begin()
            looking.begin()
            while looking._greenlet is not None and not looking._greenlet.ready():
                gevent.sleep(0.01)
        looking.close()
    mac = str(lan.links()["far-port"].get("address"))
    for address in ("10.9.0.1", "fd00:9::1"):
        words = f"another machine of the LAN, with the Ethernet address {mac}, has the address {address} of br0, too"
        assert caplog.text.count(words) == 1, caplog.text
    assert "10.9.0.9" not in caplog.text


def test_without_an_interface_or_addresses_nothing_is_asked(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "TIMES", (0.0,))
    monkeypatch.setattr(duplicates, "PAUSE", 0.0)
    none = Duplicates((), lambda: 1)
    none.begin()
    none.close()
    assert none._greenlet is None
    with lan.namespace.inside(), gevent.Timeout(PATIENCE):
        for found in (None, 0, 999):
            looking = Duplicates(("10.9.0.1/24",), lambda found=found: found)  # type: ignore[misc]
            looking.begin()
            assert looking._greenlet is not None
            looking._greenlet.join()


def test_warnings_have_an_end(caplog: pytest.LogCaptureFixture) -> None:
    looking = Duplicates(("10.9.0.1/24",), lambda: None)
    for number in range(duplicates.WARNINGS_MAX + 9):
        looking._tell("br0", FOUR, f"02:00:00:00:00:{number:02x}")
    assert len(caplog.records) == duplicates.WARNINGS_MAX
