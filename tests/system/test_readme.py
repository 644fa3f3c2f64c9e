"""README.rst, as its reader meets it: each command is understood, each link leads somewhere, and, under `make
acceptance`, all of it is typed line by line on a bare Debian."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import debian as debian_lab
from tests.lab.hosts import Host, Process, cable, until
from tests.lab.readme import NAMES, README, Block, blocks, understand

ROOT = README.parent

#: What is typed on a bare Debian takes minutes, and needs a Debian mirror and a Python package index.
acceptance = pytest.mark.packages


def test_the_blocks_are_found() -> None:
    found = blocks()
    assert len(found) >= 17
    assert found[0] == Block(
        "Install",
        "::",
        (
            "apt install python3-venv",
            "python3 -m venv /opt/etherws",
            "/opt/etherws/bin/pip install .",
            "ln -s /opt/etherws/bin/etherws /usr/local/bin/",
        ),
    )
    assert found[2].before == "On Hypervisor1::"
    assert found[2].commands[:2] == ("etherws server", "brctl addbr br0")
    assert not any("<" in command.replace(">>", "").replace("</", "") for block in found for command in block.commands)


@pytest.mark.parametrize("line", [line for block in blocks() for line in block.commands if line.startswith("etherws ")])
def test_each_command_is_understood(line: str) -> None:
    understand(line)


def test_each_link_leads_to_a_file() -> None:
    text = README.read_text(encoding="utf-8")
    targets = dict(re.findall(r"^\.\. _(\S+): (\S+)$", text, re.MULTILINE))
    assert set(re.findall(r"`([^`\s]+)`_", text)) == targets.keys()
    assert not re.findall(r"``(?:docs/[\w-]+|CONTRIBUTING|CHANGELOG)\.rst``", text)
    for name, target in targets.items():
        assert name == target
        assert (ROOT / target).is_file()


class Debian:
    """A bare Debian in a folder, and two hypervisors that run on it, each with a VM behind vnet0."""

    def __init__(self, root: Path, hosts: tuple[Host, Host], vms: tuple[Host, Host]) -> None:
        self.root, self.hosts, self.vms = root, hosts, vms

    def types(self, number: int, *commands: str) -> str:
        """Type commands on Hypervisor 1 or 2, in the checkout; return what they print."""
        output = ""
        for command in commands:
            process = self.run(number, command)
            assert process.ends() == 0, f"Hypervisor{number}: {command}\n{process.output}"
            output += process.output
        return output

    def run(self, number: int, command: str) -> Process:
        """Start a command there."""
        return self.hosts[number - 1].run(*debian_lab.arguments(self.root, command))

    def passes(self) -> None:
        """Wait until a ping passes from VM1 to VM2."""
        ping = self.vms[0].program("ping")
        until(lambda: self.vms[0].run(ping, "-c1", "-W1", "10.0.0.2").ends() == 0, "a ping from VM1 to VM2")

    def stops(self) -> None:
        """End etherws on both, as its start says, and delete br0."""
        for host in self.hosts:
            assert host.namespace.end(10)
            assert "ethws0" not in host.links()
            if "br0" in host.links():
                host.delete_link("br0")


def _make(root: Path) -> None:
    """A bare Debian with the checkout, which knows the machines' names."""
    debian_lab.bootstrap(root)
    debian_lab.copy_checkout(root / debian_lab.INSIDE[1:])
    address, name = NAMES.values()
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{address} {name}\n")


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    """Debian with etherws installed as the README says. It needs root, debootstrap and a Debian mirror."""
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        pytest.skip("only root can enter a bare Debian, and debootstrap makes it")
    root = tmp_path_factory.mktemp("debian")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        _make(root)
        for block in blocks():
            if block.heading == "Install":
                for command in block.commands:
                    debian_lab.install(root, command.replace("apt install", "apt-get install -y -q"))
        one, two, vm1, vm2 = (stack.enter_context(contextlib.closing(Host())) for _ in range(4))
        cable(one, two, "192.0.2.1/24", "192.0.2.2/24")
        for host, vm, address in ((one, vm1, "10.0.0.1/24"), (two, vm2, "10.0.0.2/24")):
            host.namespace.cable("vnet0", vm.namespace, "eth0")
            host.namespace.configure("vnet0")
            vm.namespace.configure("eth0", address)
        yield Debian(root, (one, two), (vm1, vm2))


def under(heading: str, *words: str) -> tuple[str, ...]:
    """The commands of the one block under this heading whose sentence before, or commands, have these words."""
    (found,) = (
        block
        for block in blocks()
        if block.heading == heading and all(word in "\n".join((block.before, *block.commands)) for word in words)
    )
    return found.commands


@acceptance
def test_a_tunnel(debian: Debian) -> None:
    debian.types(1, *under("Use", "brctl", "etherws server"))
    debian.types(2, *under("Use", "brctl", "etherws client"))
    debian.passes()
    debian.stops()


@acceptance
def test_the_words_of_ip(debian: Debian) -> None:
    for number, name in ((1, "server"), (2, "client")):
        debian.types(number, under("Use", "brctl", f"etherws {name}")[0], *under("Use", "ip link"))
    debian.passes()
    debian.stops()


@acceptance
def test_how_to_end_it(debian: Debian) -> None:
    start, log, end = under("Use", "--pidfile")
    assert log == "journalctl -t etherws -f"
    debian.types(1, start)
    assert "ethws0" in debian.hosts[0].links()
    debian.types(1, end)
    until(lambda: "ethws0" not in debian.hosts[0].links(), "the end of etherws")


@acceptance
def test_tls(debian: Debian) -> None:
    debian.types(1, *under("Use", "openssl req"))
    by_authority, (make_key, by_key) = under("Use", "--cacert"), under("Use", "--pinnedpubkey")
    debian.types(1, make_key)
    for client in (*by_authority, by_key):
        debian.types(1, *under("Use", "etherws server --keyfile"), *under("Use", "ip link"))
        assert "cannot" not in debian.types(2, client, *under("Use", "ip link"))
        debian.passes()
        debian.stops()


@acceptance
def test_who_may_join(debian: Debian) -> None:
    (debian.root / "root/etherws/policy.toml").write_text('[client."branch1"]\nmacs = 64\n')
    make_token, serve = under("Who may join", "passwd")
    check, serve_by_policy = under("Who may join", "etherws check policy.toml")
    debian.types(1, make_token)
    assert "branch1 " in debian.types(1, check)
    # The reader of this section may have an authority's certificate; this one has its own.
    (join,) = (f"{line} --cacert ssl.crt" for line in under("Who may join", "etherws client"))
    for server in (serve, serve_by_policy):
        debian.types(1, server, *under("Use", "ip link"))
        assert "cannot" not in debian.types(2, join, *under("Use", "ip link"))
        debian.passes()
        debian.stops()


@acceptance
def test_the_units(debian: Debian) -> None:
    debian_lab.install(debian.root, "apt-get install -y -q systemd")
    heading = "Under systemd, in containers"
    for number, name in ((1, "server"), (2, "client")):
        lines = under(heading, f"etherws-{name}")
        assert f"systemctl enable --now etherws-{name}@lan" in lines
        # systemd does not run in a chroot. systemctl makes its links there; what it would start is started below.
        here = [line.replace(" --now", "") for line in lines if not line.startswith(("journalctl", "systemctl re"))]
        debian.types(number, *here)
        unit = f"etherws-{name}@lan.service"
        assert (debian.root / "etc/systemd/system/multi-user.target.wants" / unit).is_symlink()
        assert debian.types(number, f"systemd-analyze verify {unit}") == ""
        text = (debian.root / f"etc/systemd/system/etherws-{name}@.service").read_text()
        (start,) = re.findall("^ExecStart=(.*)$", text, re.MULTILINE)
        (environ,) = re.findall("^EnvironmentFile=-(.*)$", text.replace("%i", "lan"), re.MULTILINE)
        debian.run(number, f"env $(cat {environ}) {start} --foreground").says(
            "listening" if name == "server" else "connected"
        )
    for host in debian.hosts:
        host.set_link("vnet0", master=host.links()["br0"]["index"])
    debian.passes()
    debian.stops()


@acceptance
def test_gunicorn(debian: Debian) -> None:
    install, plain, encrypted = under("Under gunicorn", "gunicorn")
    debian_lab.install(debian.root, install)
    for server, client in ((plain, under("Use", "brctl", "etherws client")[0]), (encrypted, *under("Use", "--cacert"))):
        debian.run(1, server)
        until(lambda: "ethws0" in debian.hosts[0].links(), "ethws0")
        debian.types(1, *under("Use", "ip link"))
        assert "cannot" not in debian.types(2, client, *under("Use", "ip link"))
        debian.passes()
        debian.stops()


@acceptance
def test_behind_a_reverse_proxy(debian: Debian) -> None:
    debian.types(1, *under("Behind a reverse proxy", "--address"))
    assert (debian.root / "run/etherws.sock").is_socket()
    debian.stops()
