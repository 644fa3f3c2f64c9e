"""The pages of docs/ about certificates, CDNs, bridges and upgrades, typed as they stand."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.hosts import Host, until
from tests.lab.pages import DOCS, Machine, all_commands, commands, invitation, pair
from tests.lab.pki import Authority, make_certificate

pytestmark = pytest.mark.packages

Pair = tuple[Machine, Machine]

NETWORKD = Path("/lib/systemd/systemd-networkd")

#: What the unit of networkd runs, in folders of this machine's own, which belong to networkd's user.
_NETWORKD = f"""#!/bin/sh
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network: /run/systemd/netif
# Where it is read-only, networkd does not wait for udev.
mount -o remount,bind,ro /sys
{NETWORKD} >networkd.log 2>&1 &
"""


@pytest.fixture
def machines(hosts: tuple[Host, Host], tmp_path: Path) -> Iterator[Pair]:
    """Two machines. The first one has the names of the servers."""
    with pair(hosts, tmp_path, "host.example", "lan.example.com") as made:
        yield made


def block(page: str, heading: str, number: int) -> str:
    """The text of a block of the page that is no command: the one of this number below the heading."""
    text = (DOCS / page).read_text(encoding="utf-8").partition(f"\n{heading}\n")[2]
    found = re.findall(r"^\.\. code-block:: \w+\n\n((?:   .*\n|\n)+)", text, re.MULTILINE)
    return textwrap.dedent(found[number])


def pebble(server: Machine, folder: Path) -> str:
    """Start a certificate authority that speaks ACME, as certbot's settings say; return the file of its root."""
    pair = make_certificate(folder)
    settings = {
        "listenAddress": "127.0.0.1:14000",
        "managementListenAddress": "127.0.0.1:15000",
        "certificate": str(pair.cert),
        "privateKey": str(pair.key),
        "httpPort": 80,
        "tlsPort": 443,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    (server.folder / "etc/letsencrypt/renewal-hooks/deploy").mkdir(parents=True)
    text = "server = https://localhost:14000/dir\nno-verify-ssl = true\nagree-tos = true\n"
    text += "register-unsafely-without-email = true\nnon-interactive = true\nno-random-sleep-on-renew = true\n"
    (server.folder / "etc/letsencrypt/cli.ini").write_text(text)
    server.starts(f"exec pebble -config {folder}/pebble.json", PEBBLE_VA_NOSLEEP="1", PEBBLE_WFE_NONCEREJECT="0")
    fetch = f"curl -sk https://localhost:15000/roots/0 -o {folder}/root.pem"
    until(lambda: server.starts(fetch).ends() == 0, "the certificate authority")
    return f"{folder}/root.pem"


def serial(server: Machine) -> str:
    """The number of the certificate that the server shows."""
    connect = "openssl s_client -connect host.example:443 -servername host.example </dev/null 2>/dev/null"
    return server.types(f"{connect} | openssl x509 -noout -serial")


def test_a_certificate_of_lets_encrypt_and_its_renewal(machines: Pair, tmp_path: Path) -> None:
    page = "lets-encrypt.rst"
    server, client = machines
    for name in ("pebble", "certbot", "curl"):
        server.host.program(name)
    root = pebble(server, tmp_path)
    alone, in_its_folder = commands(page, "Get it")
    server.types(alone, "certbot delete --cert-name host.example")
    (server.folder / "var/www/html").mkdir(parents=True)
    server.starts("exec python3 -m http.server 80 --directory /var/www/html")
    until(lambda: server.starts("curl -s http://host.example/").ends() == 0, "the web server")
    server.types(in_its_folder)

    serve, join = commands(page, "Use it")
    line = invitation(server.types(serve))
    assert "The server lets this client in" in client.types(join, asked_for=line, SSL_CERT_FILE=root)
    hook, renew, check = commands(page, "Have it renewed")
    before = serial(server)
    server.types(hook, renew)
    until(lambda: serial(server) != before, "the new certificate")
    checked = client.starts(check, SSL_CERT_FILE=root)
    checked.ends()
    assert re.search(r"OK +certificate +for host.example, by .Pebble", checked.output)
    # The same session as before.
    [status] = json.loads(server.types("etherws status lan --json"))["sessions"]
    assert status["identity"] == "branch1"
    assert status["reconnects"] == 0


def test_behind_a_cdn(machines: Pair, authority: Authority) -> None:
    page = "cdn.rst"
    server, client = machines
    certificate = authority.issue(("lan.example.com",))
    shutil.copy(certificate.cert, server.folder / "etc/ssl/lan.example.com.crt")
    shutil.copy(certificate.key, server.folder / "etc/ssl/lan.example.com.key")
    (server.folder / "etc/ssl/lan.example.com.key").chmod(0o600)
    serve, *proxies = commands(page, "The origin")
    line = invitation(server.types(serve))
    server.types(*proxies)
    join, check = commands(page, "The client")
    trusted = str(authority.cert)
    assert "The server lets this client in" in client.types(join, asked_for=line, SSL_CERT_FILE=trusted)
    assert "Nothing is wrong" in client.types(check, SSL_CERT_FILE=trusted)


def test_bridges(machines: Pair) -> None:
    page, heading = "bridges.rst", "A bridge that is there at boot"
    machine, _ = machines
    for name in ("ifup", "brctl", "netplan"):
        machine.host.program(name)
    if not NETWORKD.exists():
        pytest.skip("no systemd-networkd on this machine")
    up, networkd, netplan, *others = commands(page, heading)
    with contextlib.closing(Host()) as far:
        machine.host.namespace.cable("eth1", far.namespace, "eth0")
        far.namespace.configure("eth0")
        (machine.folder / "etc/network/interfaces").write_text("source /etc/network/interfaces.d/*\n")
        (machine.folder / "etc/network/interfaces.d/br0").write_text(block(page, heading, 0))
        machine.types(up)
        assert is_made(machine)

        machine.types("etherws init server --host host.example --client branch1 --enable")
        machine.types(*(line for line in others if not line.startswith("nmcli")))
        links = machine.host.links()
        assert links["ethws0"].get("master") == links["br0"]["index"]
        machine.types(*commands(page, "Spanning tree"), "etherws stop lan", "ip link delete br0")

        made = machine.folder / "bin/systemctl.d"
        made.mkdir()
        (made / "systemd-networkd").write_text(_NETWORKD)
        (made / "systemd-networkd").chmod(0o755)
        # networkd makes the identifier of DHCP of it.
        (machine.folder / "etc/machine-id").write_text("0123456789abcdef" * 2 + "\n")
        folder = machine.folder / "etc/systemd/network"
        folder.mkdir(parents=True)
        for number in (1, 2, 3):
            text = block(page, heading, number)
            (folder / text.partition("\n")[0].removeprefix("# ")).write_text(text)
        machine.types(networkd)
        until(lambda: is_made(machine), lambda: (machine.folder / "root/networkd.log").read_text())
        machine.types("kill $(pidof systemd-networkd)", "rm /etc/systemd/network/*", "ip link delete br0")
        (machine.folder / "etc/netplan/60-br0.yaml").write_text(block(page, heading, 4))
        (machine.folder / "etc/netplan/60-br0.yaml").chmod(0o600)
        machine.types(netplan, networkd)
        until(lambda: is_made(machine), lambda: (machine.folder / "root/networkd.log").read_text())


def is_made(machine: Machine) -> bool:
    """Whether br0 has the card and the address of the page."""
    links = machine.host.links()
    made = "br0" in links and links["eth1"].get("master") == links["br0"]["index"]
    return made and "10.77.0.1/24" in machine.types("ip address show br0")


def test_two_hosts_of_proxmox(machines: Pair) -> None:
    """The commands of etherws; the bridge is there, as the page has Proxmox make it."""
    first, second = machines
    serve, join = [line for line in all_commands("proxmox.rst") if line.startswith("etherws init")]
    for machine in machines:
        machine.host.bridge("vmbr1")
    line = invitation(first.types(serve))
    second.types(join, asked_for=line)
    for machine in machines:
        links = machine.host.links()
        assert links["ethws0"].get("master") == links["vmbr1"]["index"]


def test_an_upgrade(machines: Pair) -> None:
    server, client = machines
    line = invitation(server.types("etherws init server --host host.example --client branch1 --enable"))
    client.types("etherws init client --enable", asked_for=line)
    (server.folder / "opt/etherws").mkdir(parents=True)
    page = "upgrade.rst"
    for command in all_commands(page):
        # Typed by others: pip in a Debian, and the signal with what it does.
        if "/bin/pip " not in command and not command.startswith("kill "):
            server.types(command)
    assert (server.folder / "opt/etherws-before").is_dir()
