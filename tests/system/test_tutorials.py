"""docs/tutorials/, typed as they stand, on machines whose units a script starts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import typed
from tests.lab.hosts import Host, until
from tests.lab.pages import Machine, commands, invitation, pair

pytestmark = pytest.mark.packages

Pair = tuple[Machine, Machine]


@pytest.fixture
def machines(hosts: tuple[Host, Host], tmp_path: Path) -> Iterator[Pair]:
    """Two machines, 192.0.2.1 and 192.0.2.2, which end with what was started on them."""
    with pair(hosts, tmp_path) as made:
        yield made


def lan(host: Host, address: str, stack: contextlib.ExitStack) -> Host:
    """A machine with this address on a cable to eth1 of the host."""
    far = stack.enter_context(contextlib.closing(Host()))
    host.namespace.cable("eth1", far.namespace, "eth0")
    host.namespace.configure("eth1")
    far.namespace.configure("eth0", address)
    return far


def pings(host: Host, address: str) -> None:
    """Wait until a ping passes."""
    ping = host.program("ping")
    until(lambda: host.run(ping, "-c1", "-W1", address).ends() == 0, f"a ping to {address}")


def test_a_first_link(machines: Pair) -> None:
    page = "tutorials/first-link.rst"
    server, client = machines
    line = invitation(server.types(*commands(page, "On the server")))
    (join,) = commands(page, "On the client")
    assert "The server lets this client in" in client.types(join, asked_for=line)
    *tried, status = commands(page, "Try it")
    server.types(*tried[:2])
    client.types(*tried[2:])
    for machine in machines:
        assert "ethws0" in machine.types(status)
    assert "etherws-invitation:" in server.types(*commands(page, "One more client"))


def test_two_hypervisors(machines: Pair) -> None:
    page = "tutorials/two-hypervisors.rst"
    serve, join = commands(page, "The tunnel")
    one, two = machines
    line = invitation(one.types(serve))
    two.types(join, asked_for=line)
    heading = "A virtual machine with QEMU"
    two.host.program("qemu-system-x86_64")
    two.host.program("qemu-img")
    one.host.add_address("br0", "10.77.0.1/24")
    with contextlib.closing(one.host.frames("br0")):
        two.types(*commands(page, heading))
        try:
            fdb, status = commands(page, "Try it")
            # The firmware of the virtual machine asks for an address, and the far bridge learns who asks.
            until(lambda: "52:54:00:12:34:01" in one.types(fdb), "a frame of the virtual machine at the other side")
            assert "ethws0" in two.types(status)
        finally:
            two.types("kill $(cat /run/vm.pid)")


def test_a_branch_behind_a_proxy(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    page = "tutorials/branch-behind-a-proxy.rst"
    office, branch = hosts
    squid = office.program("squid")
    with contextlib.ExitStack() as stack:
        # The proxy is between the two: the branch knows no way to 198.51.100.1.
        office.add_address("lo", "198.51.100.1/32")
        one = Machine(office, tmp_path / "one", {"hq.example": "198.51.100.1"})
        two = Machine(branch, tmp_path / "two", {"proxy.example": "192.0.2.1"})
        for machine in (one, two):
            stack.callback(machine.host.namespace.end, 10)
        settings = "http_port 3128\nhttp_access allow all\npid_filename none\naccess_log none\ncache_log /dev/null\n"
        (one.folder / "root/squid.conf").write_text(settings + "cache_mem 1 MB\nhosts_file /etc/hosts\n")
        one.starts(f"{squid} -N -f squid.conf")
        server, pc = lan(office, "10.77.0.10/24", stack), lan(branch, "10.77.0.20/24", stack)
        until(lambda: two.starts("bash -c ': </dev/tcp/proxy.example/3128'").ends() == 0, "the proxy")

        serve, *at_office = commands(page, "At the head office")
        line = invitation(one.types(serve))
        one.types(*at_office)
        export, look, join, *rest = commands(page, "At the branch")
        name, _, proxy = export.removeprefix("export ").partition("=")
        typed.note(export)
        looked = two.starts(look, **{name: proxy})
        looked.ends()
        assert "through" in looked.output
        assert "The server lets this client in" in two.types(join, asked_for=line, **{name: proxy})
        two.types(*rest, **{name: proxy})
        pings(pc, "10.77.0.10")
        pings(server, "10.77.0.20")
        (status,) = commands(page, "Try it")
        assert "proxy.example" in two.types(status)


def test_one_laptop(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    page = "tutorials/one-laptop.rst"
    office, laptop = hosts
    dnsmasq = office.program("dnsmasq")
    laptop.program("dhclient")
    with contextlib.ExitStack() as stack:
        made = [
            Machine(host, tmp_path / name, {"office.example": "192.0.2.1"})
            for name, host in (("one", office), ("two", laptop))
        ]
        for machine in made:
            stack.callback(machine.host.namespace.end, 10)
        one, two = made
        printer = lan(office, "10.77.0.10/24", stack)
        dhcp = ("--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--dhcp-range=10.77.0.50,10.77.0.60,1h")
        leases = f"--dhcp-leasefile={tmp_path}/leases"
        printer.run(dnsmasq, *dhcp, leases, "--user=root", "--dhcp-option=3,10.77.0.10", "--pid-file=")
        serve, *at_office = commands(page, "At the office")
        line = invitation(one.types(serve))
        one.types(*at_office)
        join, *ask = commands(page, "On the laptop")
        two.types(join, asked_for=line)
        two.types(*ask)
        ping, status = commands(page, "Try it")
        two.types(ping, status)
        routes = two.types("ip route")
        assert "10.77.0.0/24 dev ethws0" in routes
        assert "default" not in routes
