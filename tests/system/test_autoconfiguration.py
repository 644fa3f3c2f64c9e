"""What the far LAN can configure on the machine that runs etherws: nothing, unless it is asked for."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import OURS, PATIENCE, Host, until
from tests.lab.ip import router_advertisement
from tests.lab.peer import Peer, masked
from tests.lab.tunnels import add_addresses, start, stream

#: How a process starts is not what is tested here.
pytestmark = pytest.mark.usefixtures("forks_etherws")

#: Who sends the router advertisement: a router on the far LAN.
ROUTER = b"\x33\x33\0\0\0\1" + OURS + b"\0\0\x09"

LAST = frame(77, to=BROADCAST)


def configured(host: Host, name: str) -> tuple[set[str], bool]:
    """The IPv6 addresses that the interface has, and whether there is a default route by it."""
    with host.netlink() as route:
        (index,) = route.link_lookup(ifname=name)
        addresses = {found.get("IFA_ADDRESS") for found in route.addr("dump", family=socket.AF_INET6, index=index)}
        routes = [found for found in route.route("dump", family=socket.AF_INET6) if found.get("RTA_OIF") == index]
        return addresses, any(found["dst_len"] == 0 for found in routes)


def advertise(peer: Peer, host: Host, name: str) -> None:
    """Have the peer send a router advertisement, and wait until the interface has taken it."""
    seen = host.frames(name)
    for data in (ROUTER + router_advertisement("fd99::"), LAST):
        peer.say(masked(0x82, data))
    while seen.receive() != LAST:
        pass


@pytest.mark.parametrize("options", [[], ["--bridge", "br0"]], ids=["alone", "bridge"])
def test_a_client_configures_nothing_on_the_servers_machine(host: Host, options: list[str]) -> None:
    host.etherws("server", "--foreground", *options).says("listening")
    name = "br0" if options else "ethws0"
    advertise(Peer(host).upgraded(), host, name)
    assert configured(host, name) == (set(), False)
    assert configured(host, "ethws0") == (set(), False)


def test_a_policys_bridge_takes_no_configuration_either(host: Host, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[default]\nbridge = "br7"\n')
    host.etherws("server", "--foreground", "--policy", str(policy)).says("listening")
    peer = Peer(host).upgraded()
    advertise(peer, host, "br7")
    assert configured(host, "br7") == configured(host, "ethws1") == (set(), False)


@pytest.mark.parametrize("options", [[], ["--bridge", "br0"]], ids=["alone", "bridge"])
def test_a_server_configures_nothing_on_the_clients_machine(hosts: tuple[Host, Host], options: list[str]) -> None:
    start(hosts, None, *options)
    name = "br0" if options else "ethws0"
    seen = hosts[1].frames(name)
    sender = hosts[0].frames("ethws0")
    for data in (ROUTER + router_advertisement("fd99::"), LAST):
        sender.send(data)
    while seen.receive() != LAST:
        pass
    assert configured(hosts[1], name) == (set(), False)


@pytest.mark.parametrize("options", [[], ["--bridge", "br0"]], ids=["alone", "bridge"])
def test_who_asks_for_it_is_configured(host: Host, options: list[str]) -> None:
    host.etherws("server", "--foreground", "--accept-ra", *options).says("listening")
    name = "br0" if options else "ethws0"
    advertise(Peer(host).upgraded(), host, name)
    addresses, default = configured(host, name)
    assert default
    assert any(address.startswith("fd99::") for address in addresses)
    assert any(address.startswith("fe80::") for address in addresses)


def test_an_interface_of_its_owner_stays_as_it_is(host: Host) -> None:
    """A persistent TAP and a bridge that were there before."""
    host.bridge("br0")
    host.command("ip tuntap add tap0 mode tap")
    host.set_link("tap0", state="up")
    host.etherws("server", "--foreground", "--device", "tap0", "--bridge", "br0").says("listening")
    advertise(Peer(host).upgraded(), host, "br0")
    assert configured(host, "br0")[1]


def test_static_addresses_need_no_address_of_the_kernels(hosts: tuple[Host, Host]) -> None:
    start(hosts)
    for number, host in enumerate(hosts, 1):
        host.command(f"ip addr add fd00::{number}/64 dev ethws0")
        until(lambda host=host: "tentative" not in shown(host), "the address to be found free")  # type: ignore[misc]
        assert configured(host, "ethws0") == ({f"fd00::{number}"}, False)
    sent, got = stream(*hosts, "fd00::2", 1 << 20)
    assert sent == got


def test_a_link_local_address_can_be_added(hosts: tuple[Host, Host]) -> None:
    start(hosts)
    for number, host in enumerate(hosts, 1):
        add_addresses(host, "ethws0", f"fe80::{number}/64")
    with hosts[0].namespace.inside():
        index = socket.if_nametoindex("ethws0")
    taker, sender = (host.socket(socket.AF_INET6, socket.SOCK_DGRAM) for host in (hosts[1], hosts[0]))
    taker.settimeout(PATIENCE)
    taker.bind(("::", 0))
    sender.sendto(b"here", ("fe80::2", taker.getsockname()[1], 0, index))
    assert taker.recv(10) == b"here"


@pytest.mark.parametrize("options", [[], ["--bridge", "br0"]], ids=["alone", "bridge"])
@pytest.mark.parametrize("default", ["0", "1"])
@pytest.mark.vm_too
def test_where_settings_are_read_only_the_log_says_what_to_try(host: Host, options: list[str], default: str) -> None:
    host.needs_mounts()
    code = (
        "import ctypes, os, sys; libc = ctypes.CDLL(None, use_errno=True);"
        f"open('/proc/sys/net/ipv6/conf/default/accept_ra', 'w').write('{default}');"
        "assert libc.unshare(0x20000) == 0;"
        "assert libc.mount(b'none', b'/', None, 0x44000, None) == 0;"
        # MS_BIND; MS_REMOUNT, MS_BIND and MS_RDONLY.
        "assert libc.mount(b'/proc/sys', b'/proc/sys', None, 0x1000, None) == 0;"
        "assert libc.mount(b'none', b'/proc/sys', None, 0x1021, None) == 0;"
        "os.execv(sys.executable, [sys.executable, '-m', 'etherws', *sys.argv[1:]])"
    )
    server = host.run(sys.executable, "-c", code, "server", "--foreground", *options)
    output = server.says("listening")
    name = "br0" if options else "ethws0"
    warning = f"routers on the far LAN can give this machine IPv6 addresses and routes by {name}, "
    assert output.count(warning) == int(default)
    assert output.count("--sysctl net.ipv6.conf.default.accept_ra=0") == int(default)
    advertise(Peer(host).upgraded(), host, name)
    # Without an address of the kernel's in any case.
    addresses, _ = configured(host, name)
    assert not any(address.startswith("fe80::") for address in addresses)


def shown(host: Host) -> str:
    """What ip(8) says of ethws0's addresses."""
    listing = host.run("ip", "-6", "addr", "show", "dev", "ethws0")
    assert listing.ends() == 0
    return listing.output
