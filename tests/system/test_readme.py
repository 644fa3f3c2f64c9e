"""README.rst, and what its pages add on how to install and to start etherws: each command is understood, each link
leads somewhere, and, under `make acceptance`, all of it is typed line by line on a bare Debian."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import debian as debian_lab
from tests.lab import typed
from tests.lab.hosts import Host, Process, cable, until
from tests.lab.pages import DOCS, SYSTEMCTL, answered, invitation, shown_once
from tests.lab.readme import NAMES, README, Block, blocks, understand

ROOT = README.parent

BY_HAND, UNITS, EMBEDDING = DOCS / "by-hand.rst", DOCS / "units.rst", DOCS / "embedding.rst"
INSTALL, PROXMOX = DOCS / "install.rst", DOCS / "proxmox.rst"

#: The heading of the README above what is typed as it was with etherws 0.2.
OLD = "The commands of etherws 0.2"

#: Nobody reads a long one first.
LINES_MAX = 120

#: What is typed on a bare Debian takes minutes, and needs a Debian mirror and a Python package index.
acceptance = pytest.mark.packages

#: What the README of etherws 0.2 has to type, on each side behind its own command.
OF_0_2 = ("brctl addbr br0", "brctl addif br0 vnet0", "brctl addif br0 ethws0", "ifconfig br0 up")


def test_the_blocks_are_found() -> None:
    install, serve, join, port, programs, *old = blocks()
    assert install == Block(
        "Install",
        "and Ubuntu 22.04::",
        (
            "apt install python3-venv iproute2",
            "python3 -m venv /opt/etherws",
            "/opt/etherws/bin/pip install .",
            "ln -s /opt/etherws/bin/etherws /usr/local/bin/",
        ),
    )
    # The first server asks for a token, over TLS: so `etherws init` makes it.
    (command,) = serve.commands
    assert command.startswith("etherws init server --host hypervisor1.example --client ")
    assert join.commands == ("etherws init client --bridge br0 --enable",)
    assert port.commands == ("ip link set vnet0 master br0",)
    assert programs.commands == ("apt install bridge-utils net-tools",)
    one, two = old
    assert (one.before, one.commands) == ("On Hypervisor1::", ("etherws server", *OF_0_2))
    assert (two.before, two.commands) == ("On Hypervisor2::", ("etherws client --uri ws://192.0.2.1/", *OF_0_2))
    assert not any("<" in command for block in blocks() for command in block.commands)


@pytest.mark.parametrize("line", [line for block in blocks() for line in block.commands if line.startswith("etherws ")])
def test_each_command_is_understood(line: str) -> None:
    understand(line)


def test_it_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= LINES_MAX


def test_each_link_leads_to_a_file() -> None:
    text = README.read_text(encoding="utf-8")
    targets = re.findall(r"`[^`<]+ <([^<>]+)>`__", text) + re.findall(r"^\.\. image:: (\S+)$", text, re.MULTILINE)
    assert len(targets) > 15
    for target in targets:
        assert (ROOT / target).is_file(), target
    # A name that is no link cannot be clicked.
    assert text.count("`__") == len(targets) - 1
    assert not re.findall(r"``[\w/.-]+\.rst``", text)


class Debian:
    """A bare Debian in a folder, and two hypervisors that run on it, each with a VM behind vnet0."""

    def __init__(self, root: Path, hosts: tuple[Host, Host], vms: tuple[Host, Host]) -> None:
        self.root, self.hosts, self.vms = root, hosts, vms

    def types(self, number: int, *commands: str, asked_for: str = "") -> str:
        """Type commands on Hypervisor 1 or 2, in the checkout; return what they print. `asked_for` is typed when the
        first one asks."""
        output = ""
        for command in commands:
            line = shown_once(command)
            process = self.run(number, answered(line, asked_for) if asked_for and not output else line)
            assert process.ends() == 0, f"Hypervisor{number}: {command}\n{process.output}"
            typed.note(command)
            output += process.output
        return output

    def run(self, number: int, command: str) -> Process:
        """Start a command there."""
        typed.note(command)
        return self.hosts[number - 1].run(*debian_lab.arguments(self.root, command))

    def installs(self, *commands: str) -> None:
        """Type commands that fetch packages."""
        for command in commands:
            debian_lab.install(self.root, command.replace("apt install", "apt-get install -y -q"))
            typed.note(command)

    @contextlib.contextmanager
    def systemctl(self) -> Iterator[None]:
        """systemd does not run in a chroot. Here is a systemctl that starts what a unit would start."""
        program, running = self.root / "usr/local/sbin/systemctl", self.root / "run/systemd/system"
        program.write_text(SYSTEMCTL)
        program.chmod(0o755)
        running.mkdir(parents=True, exist_ok=True)
        try:
            yield
        finally:
            program.unlink()
            running.rmdir()

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
        one, two, vm1, vm2 = (stack.enter_context(contextlib.closing(Host())) for _ in range(4))
        made = Debian(root, (one, two), (vm1, vm2))
        made.installs(*under(README, "Install"), *under(README, OLD, "apt install"))
        cable(one, two, "192.0.2.1/24", "192.0.2.2/24")
        for host, vm, address in ((one, vm1, "10.0.0.1/24"), (two, vm2, "10.0.0.2/24")):
            host.namespace.cable("vnet0", vm.namespace, "eth0")
            host.namespace.configure("vnet0")
            vm.namespace.configure("eth0", address)
        for host in (one, two):
            # A test that fails leaves etherws in the background.
            stack.callback(host.namespace.end, 10)
        yield made


def under(page: Path, heading: str, *words: str) -> tuple[str, ...]:
    """The commands of the one block under this heading whose sentence before, or commands, have these words."""
    (found,) = (
        block
        for block in blocks(page)
        if block.heading == heading and all(word in "\n".join((block.before, *block.commands)) for word in words)
    )
    return found.commands


def by_ip() -> tuple[str, ...]:
    """The commands that make a bridge."""
    return under(BY_HAND, "Start", "ip link")


def starts() -> tuple[str, str]:
    """The commands that start a server and a client."""
    (serve,), (join,) = (under(BY_HAND, "Start", f"etherws {role}") for role in ("server", "client"))
    return serve, join


@acceptance
def test_two_commands_and_the_bridge(debian: Debian) -> None:
    serve, join, port = (under(README, "Use", words) for words in ("init server", "init client", "ip link"))
    with debian.systemctl():
        said = debian.types(1, *serve)
        assert "The server lets this client in" in debian.types(2, *join, asked_for=invitation(said))
        for number in (1, 2):
            debian.types(number, *port)
        debian.passes()
        shown = debian.types(1, "etherws status")
        assert "hypervisor2" in shown
        assert "connected to wss://hypervisor1.example:443" in shown
        written = (debian.root / "etc/etherws/server/lan.toml").read_text()
        assert re.findall("^(?:certfile|token-file) = ", written, re.MULTILINE) == ["token-file = ", "certfile = "]
        debian.stops()
    shutil.rmtree(debian.root / "etc/etherws")


@acceptance
def test_proxmox(debian: Debian) -> None:
    serve, join = (under(PROXMOX, "A bridge for the far LAN", f"init {role}") for role in ("server", "client"))
    for host in debian.hosts:
        host.bridge("vmbr1", "vnet0")
    with debian.systemctl():
        said = debian.types(1, *serve)
        debian.types(2, *join, asked_for=invitation(said))
        debian.passes()
        debian.stops()
    for host in debian.hosts:
        host.delete_link("vmbr1")
    shutil.rmtree(debian.root / "etc/etherws")


@acceptance
def test_the_commands_of_0_2(debian: Debian) -> None:
    debian.types(1, *under(README, OLD, "etherws server"))
    debian.types(2, *under(README, OLD, "etherws client"))
    debian.passes()
    debian.stops()


@acceptance
def test_the_words_of_ip(debian: Debian) -> None:
    for number, start in enumerate(starts(), 1):
        debian.types(number, start, *by_ip())
    debian.passes()
    debian.stops()


@acceptance
def test_how_to_end_it(debian: Debian) -> None:
    start, log, end = under(BY_HAND, "Stop, and read the log")
    debian.installs("apt install systemd")
    debian.types(1, start, log)
    assert "ethws0" in debian.hosts[0].links()
    debian.types(1, end)
    until(lambda: "ethws0" not in debian.hosts[0].links(), "the end of etherws")


@acceptance
def test_tls(debian: Debian) -> None:
    debian.types(1, *under(BY_HAND, "TLS", "openssl req"))
    by_authority, (make_key, by_key) = under(BY_HAND, "TLS", "--cacert"), under(BY_HAND, "TLS", "--pinnedpubkey")
    debian.types(1, make_key)
    for client in (*by_authority, by_key):
        debian.types(1, *under(BY_HAND, "TLS", "etherws server --keyfile"), *by_ip())
        assert "cannot" not in debian.types(2, client, *by_ip())
        debian.passes()
        debian.stops()


@acceptance
def test_who_may_join(debian: Debian) -> None:
    (debian.root / "root/etherws/policy.toml").write_text('[client."branch1"]\nmacs = 64\n')
    make_token, serve = under(BY_HAND, "Who may join", "passwd")
    check, serve_by_policy = under(BY_HAND, "Who may join", "etherws check policy.toml")
    debian.types(1, make_token)
    assert "branch1 " in debian.types(1, check)
    # The reader of this section may have an authority's certificate; this one has its own, and does as the page says.
    (join,) = under(BY_HAND, "Who may join", "etherws client")
    assert "add ``--cacert ssl.crt``" in BY_HAND.read_text(encoding="utf-8")
    for server in (serve, serve_by_policy):
        debian.types(1, server, *by_ip())
        assert "cannot" not in debian.types(2, f"{join} --cacert ssl.crt", *by_ip())
        typed.note(join)
        debian.passes()
        debian.stops()


@acceptance
def test_the_units(debian: Debian) -> None:
    debian.installs("apt install systemd")
    heading = "The units of systemd"
    lines = {role: under(UNITS, heading, f"cp contrib/etherws-{role}@.service") for role in ("server", "client")}
    for number, (role, typed_here) in enumerate(lines.items(), 1):
        assert f"systemctl enable --now etherws-{role}@lan" in typed_here
        # systemctl makes its links in a chroot; what it would start is started below.
        here = [
            line.replace(" --now", "") for line in typed_here if not line.startswith(("journalctl", "systemctl re"))
        ]
        debian.types(number, *here)
        unit = f"etherws-{role}@lan.service"
        assert (debian.root / "etc/systemd/system/multi-user.target.wants" / unit).is_symlink()
        assert debian.types(number, f"systemd-analyze verify {unit}") == ""
        text = (debian.root / f"etc/systemd/system/etherws-{role}@.service").read_text().replace("%i", "lan")
        (start,) = re.findall("^ExecStart=(.*)$", text, re.MULTILINE)
        (environ,) = re.findall("^Environment=(ETHERWS_[A-Z]+_CONFIG=.*)$", text, re.MULTILINE)
        debian.run(number, f"env {environ} {start} --foreground").says("listening" if role == "server" else "connected")
    for host in debian.hosts:
        host.set_link("vnet0", master=host.links()["br0"]["index"])
    debian.passes()
    debian.stops()
    with debian.systemctl():
        for number, role in enumerate(lines, 1):
            debian.types(number, *lines[role])
            debian.hosts[number - 1].set_link("vnet0", master=debian.hosts[number - 1].links()["br0"]["index"])
        debian.passes()
        debian.stops()
    shutil.rmtree(debian.root / "etc/etherws")


@acceptance
def test_gunicorn(debian: Debian) -> None:
    install, plain, encrypted = under(EMBEDDING, "gunicorn")
    debian.installs(install)
    debian.types(1, *under(BY_HAND, "TLS", "openssl req"))
    for server, client in ((plain, starts()[1]), (encrypted, *under(BY_HAND, "TLS", "--cacert"))):
        debian.run(1, server)
        until(lambda: "ethws0" in debian.hosts[0].links(), "ethws0")
        debian.types(1, *by_ip())
        assert "cannot" not in debian.types(2, client, *by_ip())
        debian.passes()
        debian.stops()


@acceptance
def test_behind_a_reverse_proxy(debian: Debian) -> None:
    debian.types(1, *under(BY_HAND, "Behind a reverse proxy", "--address"))
    assert (debian.root / "run/etherws.sock").is_socket()
    debian.stops()


@acceptance
def test_completion(debian: Debian) -> None:
    install, *write = under(INSTALL, "Completion and manual pages")
    debian.installs(install)
    debian.types(1, *write)
    asked = "COMP_WORDS='etherws ser' COMP_CWORD=1 _ETHERWS_COMPLETE=bash_complete etherws"
    assert "server" in debian.types(1, asked)
    loads = ". /usr/share/bash-completion/bash_completion; _completion_loader etherws; complete -p etherws"
    assert "_etherws_completion" in debian.types(1, f"bash -c '{loads}'")


@acceptance
def test_upgrade_and_remove(debian: Debian) -> None:
    """This one is the last: afterwards etherws is not there any more."""
    (stop,), program, settings = (under(INSTALL, "Remove", words) for words in ("systemctl", "/opt/etherws", "tokens"))
    with debian.systemctl():
        debian.types(1, "etherws init server --host hypervisor1.example --enable")
        debian.installs(*under(DOCS / "upgrade.rst", "Installed by pip", "pip install"))
        assert "ethws0" in debian.types(1, "etherws status lan")
        debian.types(1, stop)
    until(lambda: "ethws0" not in debian.hosts[0].links(), "the end of etherws")
    debian.types(1, *program, *settings)
    left = [
        path for folder in ("etc", "opt", "usr/local", "var/lib") for path in (debian.root / folder).rglob("*etherws*")
    ]
    assert [path for path in left if "multi-user.target.wants" not in path.parts] == []
