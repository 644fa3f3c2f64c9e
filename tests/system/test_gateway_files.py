"""contrib/evpn and the commands of docs/gateways.rst, as an administrator uses them."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import typed
from tests.lab.gateways import CONTRIB, FRR, VXLAN, Gateway, Network, configuration, give_addresses, join, pings
from tests.lab.hosts import PATIENCE, Host, Process, until
from tests.lab.readme import blocks

pytestmark = pytest.mark.packages

PAGE = CONTRIB.parents[1] / "docs" / "gateways.rst"
NETWORKD = Path("/lib/systemd/systemd-networkd")

#: What makes the folders of FRR and networkd those of a test, in a mount namespace of its own, and never in those of
#: the machine. $1 is the folder of the test, $2 the mount namespace of the machine.
OWN_FOLDERS = """
set -eu
[ "$(readlink /proc/self/ns/mnt)" != "$2" ]
mount --make-rprivate /
mount -t sysfs -o ro sysfs /sys
cp -a /etc/frr "$1/frr"
mkdir "$1/networkd"
mount --bind "$1/frr" /etc/frr
mount --bind "$1/networkd" /etc/systemd/network
mount -t tmpfs -o mode=755,uid=frr,gid=frr tmpfs /run/frr
mkdir -p /run/systemd && mount -t tmpfs -o mode=755 tmpfs /run/systemd
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases
chown -R systemd-network: /run/systemd/netif
networkd=
trap '/usr/lib/frr/frrinit.sh stop; [ -z "$networkd" ] || kill $networkd' EXIT
trap exit TERM
"""

#: What the units do that the page restarts: no systemd runs here.
UNITS = {
    "systemctl restart frr": "/usr/lib/frr/frrinit.sh restart",
    "systemctl restart systemd-networkd": f"{NETWORKD} & networkd=$!",
}


def commands(heading: str) -> list[str]:
    """The commands below this heading of the page."""
    return [command for block in blocks(PAGE) if block.heading == heading for command in block.commands]


@contextlib.contextmanager
def shell(host: Host, folder: Path, *lines: str) -> Iterator[Process]:
    """Run these in a shell of that machine, with folders of its own, from the checkout. At the end all that runs on the
    machine is ended: FRR's daemons leave the shell."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    host.needs_mounts()
    typed.note(*lines)
    script = OWN_FOLDERS + "\n".join(UNITS.get(line, line) for line in lines)
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", str(folder), os.readlink("/proc/self/ns/mnt")]
    try:
        yield host.run(*argv, cwd=CONTRIB.parents[1])
    finally:
        host.namespace.end(0.4 * PATIENCE)


def made(host: Host, bridge: str = "br0") -> dict[str, Any]:
    """What matters of the bridge and the VXLAN."""
    process = host.run("ip", "-d", "-j", "link", "show")
    assert process.ends() == 0
    links = {link["ifname"]: link for link in json.loads(process.output)}
    own, vxlan = links[bridge], links[VXLAN]
    data, port = vxlan["linkinfo"]["info_data"], vxlan["linkinfo"]["info_slave_data"]
    return {
        "bridge": [own["linkinfo"]["info_data"][name] for name in ("stp_state", "vlan_filtering")],
        "vxlan": [data.get(name) for name in ("id", "local", "port", "learning")],
        "port": [port[name] for name in ("learning", "flood", "neigh_suppress", "isolated")],
        "mtu": [own["mtu"], vxlan["mtu"]],
        "up": ["UP" in own["flags"], "UP" in vxlan["flags"], vxlan.get("master")],
        "addresses of their own": [own.get("inet6_addr_gen_mode"), vxlan.get("inet6_addr_gen_mode")],
    }


@pytest.fixture
def needs_frr() -> None:
    if not (FRR / "bgpd").exists():
        pytest.skip("no FRR on this machine; make acceptance installs Debian's package frr")


def test_systemd_networkd_makes_what_the_commands_make(host: Host, tmp_path: Path, needs_frr: None) -> None:
    if not NETWORKD.exists():
        pytest.skip("no systemd-networkd on this machine")
    _, by_commands, by_networkd = (
        [command for command in commands("The bridge and VXLAN") if word in command]
        for word in ("", "contrib/evpn/gateway", "systemd")
    )
    for command in by_commands:
        assert host.run("sh", "-c", command, cwd=CONTRIB.parents[1]).ends() == 0
        typed.note(command)
    wanted = made(host)
    assert wanted["port"] == [False, True, False, False]
    assert wanted["up"] == [True, True, "br0"]
    host.command(f"sh {CONTRIB}/gateway down")
    assert set(host.links()) == {"lo"}

    def is_made() -> bool:
        return {"br0", VXLAN} <= host.links().keys() and made(host) == wanted

    with shell(host, tmp_path, *by_networkd, "wait") as running:
        until(is_made, lambda: f"{wanted}; networkd says {running.output}")


def test_the_script_says_how_it_is_used_and_takes_another_number_and_bridge(host: Host) -> None:
    for wrong in ("", "up", "down 1 2 3", "sideways 192.0.2.1", "up 1 2 3 4"):
        process = host.run("sh", str(CONTRIB / "gateway"), *wrong.split())
        assert process.ends() == 64
        assert "usage: gateway up ADDRESS [VNI [BRIDGE]]" in process.output
    host.command(f"sh {CONTRIB}/gateway up 192.0.2.1 7 br-lab")
    assert {"br-lab", "vxlan7"} <= host.links().keys()
    host.command(f"sh {CONTRIB}/gateway down 7 br-lab")
    assert set(host.links()) == {"lo"}

    # It removes what there is.
    assert host.run("sh", str(CONTRIB / "gateway"), "up", "192.0.2.one").ends() != 0
    assert host.links().keys() == {"lo", "br0"}
    assert host.run("sh", str(CONTRIB / "gateway"), "down").ends() != 0
    assert set(host.links()) == {"lo"}


def test_a_gateway_that_was_set_up_as_the_page_says_is_one(network: None, tmp_path: Path, needs_frr: None) -> None:
    """With another one, which tests/lab/gateways.py has set up. FRR runs by its own script, as under systemd."""
    with contextlib.closing(Network(1550)) as net:
        gateway, client, far = net.machine(1), net.machine(11), net.machine(12)
        look = commands("Is it right?")
        typed.note(*look)
        assert len(look) == 3
        lines = [*commands("FRR"), *commands("The bridge and VXLAN")[:1]]
        # It is looked at each time somebody asks; FRR may not be there yet.
        looking = "; ".join(f"{each} || :" for each in look)
        lines += [f"while read -r line; do {looking}; echo done; done <{tmp_path}/asked"]
        os.mkfifo(tmp_path / "asked")
        serve, connect = (command.split()[1:] for command in commands("etherws"))
        with shell(gateway, tmp_path, *lines) as running:
            until(lambda: "br0" in gateway.links(), lambda: f"the bridge: {running.output}")
            gateway.etherws(*serve, "--foreground").says("listening")
            other = net.add_gateway(2, [1])
            with open(tmp_path / "asked", "w", encoding="ascii", buffering=1) as asking:

                def shown() -> str:
                    count = running.output.count("done\n")
                    print("", file=asking)
                    running.says("done\n", times=count + 1)
                    return running.output.split("done\n")[-2]

                there = "00:00:00:00:00:00 dst 192.0.2.2"
                until(lambda: there in shown(), lambda: f"the other gateway: {running.output}")
                other.serve()
                give_client(client, 11)
                client.etherws(*connect, "--foreground").says("connected to ws://192.0.2.1")
                typed.note(*commands("etherws"))
                join(far, 12, "--uri", "ws://192.0.2.2/")
                pings(client, 12)
                remote = re.compile(r"02:ee:00:00:00:0c\s+remote\s+192\.0\.2\.2")
                until(lambda: bool(remote.search(shown())), lambda: f"the address to come by BGP: {running.output}")
                text = shown()
            assert re.search(r"192\.0\.2\.2\b.*\b00:\d\d:\d\d\b", text)
            assert re.search(r"02:ee:00:00:00:0b\s+local\s+ethws0", text)
            running.ends()


def give_client(host: Host, number: int) -> None:
    """A bridge with an address of the LAN."""
    host.bridge("br0")
    give_addresses(host, "br0", number)


def test_frr_takes_each_line_of_the_file_and_the_reflectors_one(network: None, needs_frr: None) -> None:
    host = Gateway(1)
    try:
        host.add_address("lo", "192.0.2.1/32")
        text = configuration(1, [2, 3])
        assert text.count("neighbor 192.0.2.") == 2
        line = re.search(r"``(neighbor gateways route-reflector-client)``", PAGE.read_text())
        assert line
        host.frr.start(text.replace("  neighbor gateways activate\n", f"  neighbor gateways activate\n  {line[1]}\n"))
        running = host.frr.show("show running-config")
        for wanted in ("advertise-all-vni", "neighbor 192.0.2.3 peer-group gateways", line[1]):
            assert wanted in running
    finally:
        host.close()


def test_every_command_of_the_page_is_run_by_a_test_or_is_the_benchmark() -> None:
    """The other headings' commands are run by tests/system/test_gateways.py, in the same words."""
    here = {"FRR", "The bridge and VXLAN", "etherws", "Is it right?"}
    others = [command for block in blocks(PAGE) if block.heading not in here for command in block.commands]
    tests = (Path(__file__).parent / "test_gateways.py").read_text().replace("{VXLAN}", VXLAN)
    for command in others:
        assert command in tests or command == ".venv/bin/python bench/gateways.py", command
