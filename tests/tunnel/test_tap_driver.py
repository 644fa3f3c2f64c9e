"""What a TAP's driver keeps for the next owner of a device, and where a device is that was moved."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct

import pytest
import pytun

from etherws.errors import DeviceError, DeviceLost
from etherws.tunnel import tap_driver
from etherws.tunnel.offloads import Offload
from etherws.tunnel.tap import Tap
from tests.lab.hosts import Host, until
from tests.lab.ip import IPV4, IPV6, TCP, checksum
from tests.lab.tunnels import add_addresses


def number(fd: int, request: int) -> int:
    """What the driver says of a device."""
    return int(struct.unpack("i", fcntl.ioctl(fd, request, bytes(4)))[0])


def opened(name: str, flags: int) -> pytun.TunTapDevice:
    """A device that somebody has just closed. Who reads /proc/PID/fdinfo meanwhile, such as an etherws of another test
    that looks for the owner of a device, holds the open file until the kernel lets it look."""
    found: list[pytun.TunTapDevice] = []

    def tried() -> bool:
        try:
            found.append(pytun.TunTapDevice(name=name, flags=flags))
        except pytun.Error as exc:
            if exc.args[0] != errno.EBUSY:
                raise
        return bool(found)

    until(tried, f"{name} to be free")
    return found[0]


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
            ours.begin(offload=Offload.TCP)
            ours.carrier(False)
        after = opened("mine", flags | pytun.IFF_VNET_HDR)
        assert number(after.fileno(), tap_driver.TUNGETVNETHDRSZ) == 12
        assert number(after.fileno(), tap_driver.TUNGETVNETLE) == 0
        after.close()
        plain = opened("mine", flags)
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


def test_without_descriptors_a_device_that_is_there_is_not_called_gone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with host.namespace.inside(), contextlib.closing(Tap("ethws0")) as tap:

        def is_here(fd: int) -> bool:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(tap_driver, "is_here", is_here)
        with pytest.raises(DeviceError, match="Too many open files; allow more"):
            tap_driver.tap_of(tap.fileno())
