"""Bridges that filter VLANs: access ports, tagged frames, a trunk between two sites, and the VLAN of new ports."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import Frames, Host, Process, until
from tests.lab.pages import commands, invitation, pair
from tests.lab.tunnels import add_addresses, stream

pytestmark = pytest.mark.vm

MIB = 1 << 20

#: The VLAN of the bridges' new ports, and another.
ACCESS, OTHER = 20, 30

#: What bridge(8) shows of a port that has joined.
DEFAULT = {ACCESS: {"PVID", "Egress Untagged"}}


def tag(vlan: int, kind: int = 0x8100) -> bytes:
    """A VLAN's tag, of 802.1Q or another kind."""
    return struct.pack(">HH", kind, vlan)


def make_bridge(host: Host) -> None:
    """A bridge br0 that filters VLANs; a new port is in ACCESS alone, without a tag."""
    host.command(f"ip link add br0 type bridge vlan_filtering 1 vlan_default_pvid {ACCESS}")
    host.set_link("br0", state="up")


def plug(hypervisor: Host, machine: Host, name: str, vlan: int) -> None:
    """Plug a machine's eth0 into an access port of br0."""
    hypervisor.namespace.cable(name, machine.namespace, "eth0")
    hypervisor.command(f"ip link set {name} up master br0")
    if vlan != ACCESS:
        hypervisor.command(f"bridge vlan del dev {name} vid {ACCESS}")
        hypervisor.command(f"bridge vlan add dev {name} vid {vlan} pvid untagged")
    machine.set_link("eth0", state="up")


def vlans(host: Host, name: str) -> dict[int, set[str]]:
    """The VLANs of a port of a bridge and their flags, as bridge(8) shows them."""
    process = host.run("bridge", "-json", "vlan", "show", "dev", name)
    assert process.ends() == 0, process.output
    found = json.loads(process.output)
    return {entry["vlan"]: set(entry.get("flags", ())) for port in found for entry in port["vlans"]}


@pytest.fixture
def machines() -> Iterator[tuple[Host, Host]]:
    """Two machines that are in no network yet."""
    with contextlib.closing(Host()) as one, contextlib.closing(Host()) as other:
        yield one, other


class Lan(NamedTuple):
    """A server with br0, where a machine is in ACCESS and one in OTHER, both 10.0.0.1; and a client, 10.0.0.2."""

    server: Host
    client: Host
    serving: Process
    joined: Process
    access: Host
    other: Host


def serve(host: Host) -> Process:
    """A server that puts its clients into br0."""
    process = host.etherws("server", "--foreground", "--bridge", "br0")
    process.says("listening on ws://")
    return process


@pytest.fixture
def lan(hosts: tuple[Host, Host], machines: tuple[Host, Host]) -> Lan:
    """With both connected."""
    server, client = hosts
    make_bridge(server)
    for machine, name, vlan in zip(machines, ("vnet0", "vnet1"), (ACCESS, OTHER), strict=True):
        plug(server, machine, name, vlan)
        add_addresses(machine, "eth0", "10.0.0.1/24")
    serving = serve(server)
    joined = client.etherws("client", "--foreground", "ws://192.0.2.1/", "--max-retry-interval", "1s")
    joined.says("connected to ws")
    add_addresses(client, "ethws0", "10.0.0.2/24")
    return Lan(server, client, serving, joined, *machines)


def reaches(sender: Frames, hears: Frames, *, not_: Frames, behind: Frames) -> None:
    """A broadcast reaches `hears`, but not the machine of `not_`, whose cable begins at `behind`."""
    sender.send(frame(100, to=BROADCAST))
    assert hears.receive() == frame(100, to=BROADCAST)
    behind.send(frame(99))
    assert not_.receive() == frame(99)


def arrives(one: Host, other: Host, address: str) -> None:
    """A TCP stream arrives intact."""
    sent, got = stream(one, other, address, 4 * MIB)
    assert sent == got


def test_a_port_is_in_the_bridges_default_vlan_alone(lan: Lan) -> None:
    assert vlans(lan.server, "ethws0") == DEFAULT
    ends = lan.access.frames("eth0"), lan.other.frames("eth0")
    reaches(lan.client.frames("ethws0"), ends[0], not_=ends[1], behind=lan.server.frames("vnet1"))
    arrives(lan.client, lan.access, "10.0.0.1")


def test_frames_with_a_tag_pass_where_the_port_has_the_vlan(lan: Lan) -> None:
    lan.client.command(f"ip link add link ethws0 name lan0 type vlan id {OTHER}")
    lan.client.set_link("lan0", state="up")
    add_addresses(lan.client, "lan0", "10.1.0.2/24")
    add_addresses(lan.other, "eth0", "10.1.0.1/24")
    sender, hears = lan.client.frames("lan0"), lan.other.frames("eth0")
    ends = lan.access.frames("eth0"), lan.server.frames("vnet0")
    # The port is not in that VLAN yet: the bridge drops it.
    sender.send(frame(200, to=BROADCAST))
    lan.client.frames("ethws0").send(frame(60, to=BROADCAST))
    assert ends[0].receive() == frame(60, to=BROADCAST)
    lan.server.command(f"bridge vlan add dev ethws0 vid {OTHER}")
    reaches(sender, hears, not_=ends[0], behind=ends[1])
    arrives(lan.client, lan.other, "10.1.0.1")
    arrives(lan.other, lan.client, "10.1.0.2")


def test_the_vlans_of_a_port_stay_while_its_client_is_away(lan: Lan) -> None:
    lan.server.command(f"bridge vlan add dev ethws0 vid {OTHER}")
    before = vlans(lan.server, "ethws0")
    lan.server.command("ss --kill state established dst 192.0.2.2")
    lan.joined.says("connected to ws", times=2)
    assert vlans(lan.server, "ethws0") == before
    arrives(lan.client, lan.access, "10.0.0.1")


def test_each_port_is_in_the_default_vlan_after_restarts(lan: Lan) -> None:
    serving = lan.serving
    for times in (2, 3):
        serving.stop()
        serving = serve(lan.server)
        lan.joined.says("connected to ws", times=times)
        assert vlans(lan.server, "ethws0") == DEFAULT
    # A second client, whose port is made when it comes.
    second = lan.client.etherws("client", "--foreground", "ws://192.0.2.1/", "--device", "other0")
    second.says("connected to ws")
    assert vlans(lan.server, "ethws1") == DEFAULT
    ends = lan.access.frames("eth0"), lan.other.frames("eth0")
    reaches(lan.client.frames("other0"), ends[0], not_=ends[1], behind=lan.server.frames("vnet1"))
    arrives(lan.client, lan.access, "10.0.0.1")


def test_a_policy_has_access_ports_and_trunks(
    hosts: tuple[Host, Host], machines: tuple[Host, Host], tmp_path: Path
) -> None:
    """--vlan for all, and a trunk by the policy: other tags do not pass, others' changes are put back, and the VLANs of
    one client are not the next one's."""
    server, client = hosts
    make_bridge(server)
    for machine, name, vlan in zip(machines, ("vnet0", "vnet1"), (ACCESS, OTHER), strict=True):
        plug(server, machine, name, vlan)
    policy = tmp_path / "policy.toml"
    policy.write_text("# nothing yet\n")
    serving = server.etherws("server", "--foreground", "--bridge", "br0", "--vlan", str(OTHER), "--policy", str(policy))
    serving.says("listening on ws://")
    joined = client.etherws("client", "--foreground", "ws://192.0.2.1/", "--max-retry-interval", "1s")
    joined.says("connected to ws")
    assert vlans(server, "ethws0") == {OTHER: {"PVID", "Egress Untagged"}}
    client.command(f"ip link add link ethws0 name tag0 type vlan id {ACCESS}")
    client.set_link("tag0", state="up")
    ends = machines[0].frames("eth0"), machines[1].frames("eth0")
    cables = server.frames("vnet0"), server.frames("vnet1")
    plain, tagged = client.frames("ethws0"), client.frames("tag0")
    reaches(plain, ends[1], not_=ends[0], behind=cables[0])
    # A tag of another VLAN is dropped.
    tagged.send(frame(200, to=BROADCAST))
    reaches(plain, ends[1], not_=ends[0], behind=cables[0])
    # No more is one behind the port's own, or behind none: at a port without tags it would be the first.
    hidden = frame(300, to=BROADCAST)
    for outer in (tag(OTHER), tag(0), tag(ACCESS, kind=0x88A8), b""):
        plain.send(hidden[:12] + outer + tag(ACCESS, kind=0x8100 if outer else 0x88A8) + hidden[12:])
    reaches(plain, ends[1], not_=ends[0], behind=cables[0])
    # A tag with a priority alone is none.
    plain.send(hidden[:12] + tag(0) + hidden[12:])
    assert ends[1].receive() == hidden
    policy.write_text(f'[default]\nvlan = "bridge"\nvlans = [{ACCESS}]\n')
    serving.says("the files have changed: 0 clients had to go, 1 have other rules")
    assert vlans(server, "ethws0") == {ACCESS: set()}
    reaches(tagged, ends[0], not_=ends[1], behind=cables[1])
    server.command(f"bridge vlan add dev ethws0 vid {OTHER}")
    until(lambda: vlans(server, "ethws0") == {ACCESS: set()}, "the VLANs to be put back")
    policy.write_text('[default]\nvlan = "bridge"\n')
    serving.says("1 have other rules", 2)
    assert vlans(server, "ethws0") == DEFAULT


def test_the_clients_own_bridge_has_its_interface_in_a_vlan(hosts: tuple[Host, Host]) -> None:
    make_bridge(hosts[1])
    hosts[0].etherws("server", "--foreground").says("listening on ws://")
    client = hosts[1].etherws("client", "--foreground", "--bridge", "br0", "--vlan", str(OTHER), "ws://192.0.2.1/")
    client.says("connected to ws")
    assert vlans(hosts[1], "ethws0") == {OTHER: {"PVID", "Egress Untagged"}}
    hosts[1].command("ip link set br0 type bridge vlan_filtering 0")
    refused = hosts[1].etherws(
        *("client", "--foreground", "--device", "lan1", "--allow-second-link"),
        *("--bridge", "br0", "--vlan", "7", "ws://192.0.2.1/"),
    )
    assert refused.ends() == 1
    assert "br0 does not filter VLANs; ip link set br0 type bridge vlan_filtering 1" in refused.output


def test_a_trunk_between_two_sites(hosts: tuple[Host, Host], machines: tuple[Host, Host]) -> None:
    one, other = hosts
    with contextlib.closing(Host()) as third:
        for host in hosts:
            make_bridge(host)
        plug(one, machines[0], "vnet0", OTHER)
        plug(other, machines[1], "vnet0", OTHER)
        plug(other, third, "vnet1", ACCESS)
        serve(one)
        other.etherws("client", "--foreground", "ws://192.0.2.1/", "--bridge", "br0").says("connected to ws")
        for host in hosts:
            assert vlans(host, "ethws0") == DEFAULT
            host.command(f"bridge vlan add dev ethws0 vid {OTHER}")
        for number, machine in enumerate(machines, 1):
            add_addresses(machine, "eth0", f"10.0.0.{number}/24", f"fd00::{number}/64")
        ends = machines[1].frames("eth0"), third.frames("eth0")
        reaches(machines[0].frames("eth0"), ends[0], not_=ends[1], behind=other.frames("vnet1"))
        for address in ("10.0.0.2", "fd00::2"):
            arrives(machines[0], machines[1], address)


def test_what_docs_type_for_vlans(hosts: tuple[Host, Host], machines: tuple[Host, Host], tmp_path: Path) -> None:
    with pair(hosts, tmp_path, "host.example") as (server, client):
        server.host.bridge("br0")
        server.host.namespace.cable("eth1", machines[0].namespace, "eth0")
        server.types("ip link set eth1 master br0 up")
        line = invitation(
            server.types("etherws init server --host host.example --client branch1 --enable --bridge br0")
        )
        client.types("etherws init client --enable", asked_for=line)
        server.types(*commands("bridges.rst", "VLANs"))
        assert set(vlans(server.host, "eth1")) == {1, ACCESS, OTHER}
        until(lambda: vlans(server.host, "ethws0") == DEFAULT, lambda: str(vlans(server.host, "ethws0")))
