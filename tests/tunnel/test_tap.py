"""Opening a TAP: whose it is, and that it is the right one though names change hands."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from collections.abc import Callable

import pytest
import pytun

from etherws.errors import DeviceError, DeviceLost
from etherws.kernel import interfaces
from etherws.tunnel import tap_driver
from etherws.tunnel.tap import Tap
from etherws.tunnel.tap_driver import RENAMES_MAX
from tests.lab.hosts import IFF_UP, Host, until
from tests.lab.ip import IPV4, IPV6, TCP, checksum
from tests.lab.tunnels import add_addresses


def test_a_device_that_is_made_is_removed_and_a_persistent_one_stays(host: Host) -> None:
    host.command("ip tuntap add mine mode tap")
    with host.namespace.inside():
        for name, persistent in (("mine", True), ("ours", False)):
            with contextlib.closing(Tap(name)) as tap:
                assert (tap.name, tap.persistent) == (name, persistent)
                assert tap.index == host.links()[name]["index"]
        assert "mine" in host.links()
        assert "ours" not in host.links()


def when_asked(monkeypatch: pytest.MonkeyPatch, change: Callable[[str], None]) -> None:
    """Have something happen when the index of an interface is asked for."""
    index_of = interfaces.index_of

    def asked(name: str) -> int:
        change(name)
        return index_of(name)

    monkeypatch.setattr(interfaces, "index_of", asked)


def test_a_namesake_of_a_device_that_is_renamed_stays_untouched(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(name: str) -> None:
        """As udev may, at the wrong moment; and somebody makes another interface of the old name."""
        if name == "ethws0" and "moved" not in host.links():
            host.set_link("ethws0", ifname="moved")
            host.bridge("ethws0")
            host.set_link("ethws0", state="down")

    when_asked(monkeypatch, rename)
    with host.namespace.inside(), contextlib.closing(Tap("ethws0", 1400)) as tap:
        links = host.links()
        assert tap.name == "moved"
        assert tap.index == links["moved"]["index"]
        assert links["moved"].get("mtu") == 1400
        assert links["ethws0"].get("mtu") == 1500
        assert not links["ethws0"]["flags"] & IFF_UP


def test_a_device_that_never_keeps_a_name_is_an_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []

    def rename(name: str) -> None:
        names.append(name)
        host.set_link(name, ifname=f"name{len(names)}")

    when_asked(monkeypatch, rename)
    with host.namespace.inside(), pytest.raises(DeviceError, match="cannot find the new interface"):
        Tap("ethws0")
    assert len(names) == RENAMES_MAX
    assert set(host.links()) == {"lo"}


def test_a_device_that_is_deleted_at_once_is_an_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    when_asked(monkeypatch, host.delete_link)
    with host.namespace.inside(), pytest.raises(DeviceError, match="was it deleted"):
        Tap("ethws0")


def number(fd: int, request: int) -> int:
    """What the driver says of a device."""
    return int(struct.unpack("i", fcntl.ioctl(fd, request, bytes(4)))[0])


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_next_owner_of_a_persistent_device_reads_finished_checksums(host: Host, family: int) -> None:
    host.command("ip tuntap add mine mode tap")
    six = family == socket.AF_INET6
    near, far = ("fd00::1", "fd00::2") if six else ("10.0.0.1", "10.0.0.2")
    add_addresses(host, "mine", near + ("/64" if six else "/24"))
    with host.namespace.inside():
        # One that has a longer header, in the machine's byte order.
        flags = pytun.IFF_TAP | pytun.IFF_NO_PI
        before = pytun.TunTapDevice(name="mine", flags=flags | pytun.IFF_VNET_HDR)
        fcntl.ioctl(before.fileno(), tap_driver.TUNSETVNETHDRSZ, struct.pack("i", 12))
        before.close()
        with contextlib.closing(Tap("mine")) as ours:
            ours.begin(offload=True)
            ours.carrier(False)
        after = pytun.TunTapDevice(name="mine", flags=flags | pytun.IFF_VNET_HDR)
        assert number(after.fileno(), tap_driver.TUNGETVNETHDRSZ) == 12
        assert number(after.fileno(), tap_driver.TUNGETVNETLE) == 0
        after.close()
        plain = pytun.TunTapDevice(name="mine", flags=flags)
        host.command(f"ip neigh replace {far} lladdr 02:ee:00:00:00:02 dev mine")
        until(lambda: host.links()["mine"].get("carrier") == 1, "its carrier")
        with contextlib.closing(plain), host.socket(family, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            sock.connect_ex((far, 7))
            while (packet := plain.read(2000))[12:14] != (IPV6 if six else IPV4) or packet[20 if six else 23] != TCP:
                pass
            start = 54 if six else 34
            addresses = packet[22:54] if six else packet[26:34]
            segment = packet[start:] if six else packet[start : 14 + int.from_bytes(packet[16:18], "big")]
            assert checksum(addresses + struct.pack(">II", len(segment), TCP) + segment) == 0


def test_a_device_is_found_again_where_it_is(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(Host()) as guest, host.namespace.inside(), contextlib.closing(Tap("ethws0")) as tap:
        index = tap.index
        for request in (tap_driver.TUNGETDEVNETNS, 0x54FF):
            # As before Linux 5.2.
            monkeypatch.setattr(tap_driver, "TUNGETDEVNETNS", request)
            assert tap.locate() == index == tap.index
            with host.netlink() as route:
                route.link("set", index=index, net_ns_fd=guest.namespace.fileno())
                assert tap.locate() is None
                route.link("add", ifname="ethws0", kind="bridge", index=index)
            assert tap.locate() is None
            guest.set_link("ethws0", ifname="lan0")
            assert (tap.locate(), tap.present_name()) == (None, "lan0")
            with guest.netlink() as route:
                route.link("set", index=route.link_lookup(ifname="lan0")[0], net_ns_fd=host.namespace.fileno())
            index = host.links()["lan0"]["index"]
            assert (tap.locate(), tap.name) == (index, "lan0")
            host.delete_link("ethws0")
            host.command("ip link set lan0 name ethws0")
        with contextlib.closing(Tap("other")) as other:
            host.delete_link("other")
            assert not other.alive()
            assert other.present_name() == "other"
            with pytest.raises(DeviceLost, match="other is gone"):
                other.locate()


def test_a_device_that_cannot_be_looked_at_is_an_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with host.namespace.inside(), contextlib.closing(Tap("ethws0")) as tap:
        names = list[str]()

        def interface(fd: int) -> tuple[str, int]:
            names.append(f"name{len(names)}")
            return names[-1], 0

        monkeypatch.setattr(tap_driver, "interface", interface)
        with pytest.raises(DeviceError, match="changes again and again"):
            tap.locate()
