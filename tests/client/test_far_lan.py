"""What the client does not let in from the far LAN: real tunnels, and frames that the far machine sends into them."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from etherws.client import far_lan
from etherws.client.far_lan import FarLan
from etherws.errors import DeviceError
from etherws.kernel import nftables
from etherws.tunnel.tap import Tap
from etherws.tunnel.wire import VNET_BYTES
from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import Host, Process, until
from tests.lab.lan import passes
from tests.lab.packets import ICMPV6, IPV4, IPV6, TAG, UDP, icmpv6, ipv4, ipv6, udp
from tests.lab.packets import frame as holding

#: How a process starts is not what is tested here.
pytestmark = pytest.mark.usefixtures("forks_etherws")

OFFER = holding(IPV4 + ipv4(UDP, udp(67, 68)))
ROUTE = holding(TAG + IPV6 + ipv6(ICMPV6, icmpv6(134)))


def join(hosts: tuple[Host, Host], *options: str, **more: str) -> tuple[Process, Process]:
    """A server on the first machine, and a client with these options on the second; connected."""
    server = hosts[0].etherws("server", "--foreground")
    server.says("listening")
    return server, connect(hosts[1], *options, **more)


def connect(host: Host, *options: str, **environ: str) -> Process:
    """A client with these options, connected."""
    client = host.etherws(
        *("client", "--foreground", "ws://192.0.2.1/", "--bridge", "br0", "--retry-interval", "50ms", *options),
        env={"PATH": os.environ.get("PATH", ""), **environ},
    )
    client.says("connected to")
    return client


def tables(host: Host) -> set[str]:
    """The tables of rules on this machine."""
    with host.namespace.inside():
        return set(nftables.table_handles())


def arrives(hosts: tuple[Host, Host], sent: bytes) -> bool:
    """Whether the frame comes from the server's interface into the client's bridge; one that is sent after it does."""
    return passes(hosts[0].frames("ethws0"), hosts[1].frames("br0"), sent, frame(99, to=BROADCAST))


def test_what_is_named_does_not_come_in(hosts: tuple[Host, Host]) -> None:
    server, client = join(hosts, "--drop", "dhcp-server,router-advertisement")
    assert tables(hosts[1]) == {"etherws-ethws0"}
    assert not arrives(hosts, OFFER)
    assert not arrives(hosts, ROUTE)
    # The other way nothing changes.
    near, far = hosts[0].frames("ethws0"), hosts[1].frames("br0")
    far.send(OFFER)
    assert near.receive() == OFFER
    server.stop()
    client.says("dropped 1 dhcp-server, 1 router-advertisement; trying again")
    # Each line counts its own session's.
    server = hosts[0].etherws("server", "--foreground")
    client.says("connected to", times=2)
    assert not arrives(hosts, OFFER)
    server.stop()
    client.says("dropped 1 dhcp-server; trying again")
    client.stop()
    assert tables(hosts[1]) == set()


def test_the_option_repeats_and_comes_from_the_environment(hosts: tuple[Host, Host]) -> None:
    _, client = join(hosts, "--drop", "dhcp-server", "--drop", "router-advertisement, bpdu")
    assert not arrives(hosts, OFFER)
    assert not arrives(hosts, ROUTE)
    client.stop()
    client = connect(hosts[1], ETHERWS_CLIENT_DROP="dhcp-server, bpdu")
    assert not arrives(hosts, OFFER)
    assert arrives(hosts, ROUTE)


def test_without_the_option_nothing_is_dropped(hosts: tuple[Host, Host]) -> None:
    join(hosts)
    assert arrives(hosts, OFFER)
    assert arrives(hosts, ROUTE)
    assert tables(hosts[1]) == set()


def test_the_rules_are_in_force_before_the_first_connection(host: Host) -> None:
    client = host.etherws("client", "--foreground", "ws://127.0.0.1:1/", "--drop", "bpdu")
    client.says("cannot connect")
    assert tables(host) == {"etherws-ethws0"}


def test_a_device_that_is_made_anew_has_its_rules(hosts: tuple[Host, Host]) -> None:
    _, client = join(hosts, "--drop", "dhcp-server")
    hosts[1].delete_link("ethws0")
    client.says("ethws0 had been deleted and is made anew")
    client.says("connected to", times=2)
    assert not arrives(hosts, OFFER)
    assert arrives(hosts, ROUTE)


@pytest.mark.parametrize("persistent", [False, True], ids=["own", "persistent"])
def test_what_a_killed_client_left_goes_with_the_next(hosts: tuple[Host, Host], persistent: bool) -> None:
    if persistent:
        with hosts[1].netlink() as route:
            route.link("add", ifname="ethws0", kind="tuntap", mode="tap")
    _, killed = join(hosts, "--drop", "dhcp-server")
    with hosts[1].netlink() as route:
        route.link("add", ifname="other0", kind="tuntap", mode="tap")
    other = hosts[1].etherws("client", "--foreground", "ws://127.0.0.1:1/", "--device", "other0", "--drop", "bpdu")
    other.says("cannot connect")
    killed.signal(signal.SIGKILL)
    assert killed.ends() == -signal.SIGKILL
    assert tables(hosts[1]) == {"etherws-ethws0", "etherws-other0"}
    # Of another name, with rules: it removes what belongs to nobody, and nothing else.
    third = connect(hosts[1], "--device", "third0", "--drop", "bpdu")
    assert tables(hosts[1]) == {"etherws-other0", "etherws-third0"} | ({"etherws-ethws0"} if persistent else set())
    third.stop()
    # Of the same name, without rules.
    connect(hosts[1])
    assert tables(hosts[1]) == {"etherws-other0"}
    assert arrives(hosts, OFFER)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("dhcp", "Error: --drop 'dhcp' is not known; choose from bpdu, dhcp-server, router-advertisement"),
        ("bpdu,,arp", "Error: --drop 'arp' is not known; choose from"),
    ],
)
def test_an_unknown_word_is_told(host: Host, value: str, words: str) -> None:
    client = host.etherws("client", "--foreground", "ws://127.0.0.1:1/", "--drop", value)
    assert client.ends() == 1
    assert words in client.output


@pytest.mark.vm_too
def test_a_machine_that_cannot_filter_is_an_error_at_the_start(host: Host) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give its rights up")
    with host.netlink() as route:
        route.link("add", ifname="ethws0", kind="tuntap", mode="tap")
    host.set_link("ethws0", state="up")
    command = ("client", "--foreground", "ws://127.0.0.1:1/", "--device", "ethws0")
    without = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-all", sys.executable, "-m", "etherws", *command)
    client = host.run(*without, "--drop", "bpdu")
    assert client.ends() == 1
    assert "cannot filter what comes from the far LAN: Operation not permitted; run as root" in client.output
    # Who asks for nothing needs nothing.
    host.run(*without).says("cannot connect")


def test_a_vlan_needs_filters_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """They drop second tags. That they cannot is said at the start, and not when the first frame comes."""

    def cannot(what: str) -> None:
        raise DeviceError(f"cannot filter {what}: it takes another kernel")

    monkeypatch.setattr(far_lan, "check", cannot)
    with pytest.raises(DeviceError, match="cannot filter what comes from the far LAN: it takes another kernel"):
        FarLan(frozenset(), 10)
    FarLan(frozenset()).leave()


def test_drops_are_counted_once(host: Host) -> None:
    with host.namespace.inside():
        lan = FarLan(frozenset({"dhcp-server"}))
        assert not lan.drops()
        lan.close()
        tap = Tap("ethws%d")
        for _ in range(2):
            lan.guard(tap)
            tap.write_batch([bytes(VNET_BYTES) + OFFER])
            assert lan.drops() == {"dhcp-server": 1}
            assert not lan.drops()
        tap.close()
        # Another TAP has rules and counts of its own.
        tap = Tap("ethws%d")
        lan.guard(tap)
        tap.write_batch([bytes(VNET_BYTES) + OFFER])
        assert lan.drops() == {"dhcp-server": 1}
        lan.close()
        assert not nftables.table_handles()
        tap.close()


def test_rules_that_others_remove_are_put_back(hosts: tuple[Host, Host]) -> None:
    _, client = join(hosts, "--drop", "dhcp-server")
    hosts[1].command("nft flush ruleset")
    until(lambda: tables(hosts[1]) == {"etherws-ethws0"}, "the rules to be back")
    assert not arrives(hosts, OFFER)
    assert arrives(hosts, ROUTE)
    assert client.running
