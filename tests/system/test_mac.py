"""An address that stays: whoever has an IP address on the interface or its bridge is found again after a restart."""

from __future__ import annotations

import json
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from tests.lab.hosts import Host, until

SERVER = ("server", "--foreground")
CLIENT = ("client", "--foreground", "ws://192.0.2.1/")


def mac(host: Host, name: str) -> str:
    return str(host.links()[name].get("address"))


def answers(host: Host, address: str) -> bool:
    return host.run("ping", "-n", "-c", "1", "-W", "1", address).ends() == 0


def test_addresses_stay_over_a_restart_of_both_ends(hosts: tuple[Host, Host]) -> None:
    """The server has its IP address on ethws0, the client on a bridge that etherws makes."""
    started = [hosts[0].etherws(*SERVER), hosts[1].etherws(*CLIENT, "--bridge", "br0")]
    started[1].says("connected to")
    places = (hosts[0], "ethws0"), (hosts[1], "br0")
    before = [mac(host, name) for host, name in places]
    assert len({*before, mac(hosts[1], "ethws0")}) == 3
    for process in started:
        process.stop()
    hosts[0].etherws(*SERVER)
    hosts[1].etherws(*CLIENT, "--bridge", "br0").says("connected to")
    # Each end believes in the other's address of before, and asks no more.
    for number, (host, name) in enumerate(places):
        host.command(f"ip addr add 10.9.0.{number + 1}/24 dev {name}")
        host.command(f"ip neigh add 10.9.0.{2 - number} lladdr {before[1 - number]} dev {name} nud permanent")
    until(lambda: answers(hosts[1], "10.9.0.1"), "an answer by the addresses of before")


def test_mac_sets_the_address_before_ipv6_makes_its_own_of_it_and_a_twin_is_warned_of(
    hosts: tuple[Host, Host],
) -> None:
    """Also of an interface that somebody has made."""
    hosts[1].command("ip tuntap add lan0 mode tap")
    server = hosts[0].etherws(*SERVER, "--accept-ra", "--mac", "0200.5E00.0001")
    server.says("listening")
    client = hosts[1].etherws(*CLIENT, "--device", "lan0", "--mac", "2-0-5e-0-0-1")
    client.says("connected to")
    assert mac(hosts[0], "ethws0") == mac(hosts[1], "lan0") == "02:00:5e:00:00:01"
    with hosts[0].netlink() as route:
        [local] = {one.get_attr("IFA_ADDRESS") for one in route.addr("dump", label=None, family=10, scope=253)
                   if one["index"] == hosts[0].links()["ethws0"]["index"]}  # fmt: skip
    assert IPv6Address(local) == IPv6Address("fe80::5eff:fe00:1")
    ends = [host.frames(name) for host, name in ((hosts[0], "ethws0"), (hosts[1], "lan0"))]
    for _ in range(10):
        for end in ends:
            end.send(b"\xff" * 6 + bytes.fromhex("02005e000001") + b"\x88\xb5".ljust(48, b"\0"))
    server.says("WARNING 192.0.2.2 sends frames from the address of ethws0 itself, 02:00:5e:00:00:01: either")
    client.says("WARNING the server (192.0.2.1:80/) sends frames from the address of lan0 itself, 02:00:5e:00:00:01")


def test_a_persistent_interface_keeps_its_own(hosts: tuple[Host, Host]) -> None:
    hosts[0].command("ip tuntap add lan0 mode tap")
    hosts[0].command("ip link set lan0 address 02:00:5e:00:00:07")
    hosts[0].etherws(*SERVER, "--device", "lan0").says("listening")
    assert mac(hosts[0], "lan0") == "02:00:5e:00:00:07"


def test_what_is_kept_is_in_the_folder_that_is_named_or_nowhere(host: Host, tmp_path: Path) -> None:
    server = host.etherws(*SERVER, "--port", "0", "--state-dir", "made/here", cwd=tmp_path)
    server.says("listening")
    before = mac(host, "ethws0")
    kept = json.loads((tmp_path / "made/here/server-ethws0.json").read_text())
    assert kept["address"] == before
    server.stop()
    server = host.etherws(*SERVER, "--port", "0", "--state-dir", "", cwd=tmp_path)
    server.says("listening")
    assert mac(host, "ethws0") == before
    server.stop()
    assert [path.name for path in tmp_path.rglob("*.json")] == ["server-ethws0.json"]
    # A folder that cannot be is a line, and no failure.
    (tmp_path / "file").touch()
    server = host.etherws(*SERVER, "--port", "0", "--state-dir", "file/folder", cwd=tmp_path)
    server.says("listening")
    assert mac(host, "ethws0") == before
    assert (
        "server-ethws0.json cannot be kept: Not a directory; what is in it is derived again at each start"
        in server.output
    )


def test_an_address_that_is_none_is_refused(host: Host) -> None:
    refused = host.etherws(*SERVER, "--mac", "ff:ff:ff:ff:ff:ff")
    assert refused.ends() == 1
    assert "--mac 'ff:ff:ff:ff:ff:ff' is the address of a group of machines" in refused.output


def test_the_clock_does_not_matter(host: Host, tmp_path: Path) -> None:
    """A machine without a battery boots at 1970, and its clock jumps when NTP comes."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("no libfaketime on this machine")
    clock = tmp_path / "clock"
    clock.write_text("@1970-01-01 00:00:10\n")
    faked = {
        **{"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"},
        **{"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"},
    }
    found = []
    for env in (faked, {}, faked):
        server = host.etherws(*SERVER, "--port", "0", "--state-dir", str(tmp_path), env=env)
        server.says("listening")
        clock.write_text("@2040-01-01 00:00:00\n")
        found.append(mac(host, "ethws0"))
        server.stop()
        assert "WARNING" not in server.output.replace("WARNING anyone who reaches this server", "")
    assert len(set(found)) == 1
    assert json.loads((tmp_path / "server-ethws0.json").read_text())["address"] == found[0]
