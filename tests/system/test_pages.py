"""The commands of docs/: each is understood, and each is typed by a test, but for a few, each with its reason."""

from __future__ import annotations

import contextlib
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from etherws.cli.commands import main
from tests.lab import typed
from tests.lab.hosts import Host, until
from tests.lab.pages import DOCS, Machine, all_commands, commands, invitation, pages, pair
from tests.lab.readme import README, blocks, understand
from tests.typed import NOT_TYPED, every_command, reason

ROOT = README.parent

#: Who types the commands of each page that has some: tests of this file, or another file of tests/.
TYPED_BY = {
    "bridges.rst": "system/test_set_up_pages.py",
    "browser.rst": "system/test_v86.py",
    "bundle.rst": "test_what_who_runs_it_types",
    "by-hand.rst": "system/test_readme.py",
    "cdn.rst": "system/test_set_up_pages.py",
    "check.rst": "test_what_who_runs_it_types",
    "configuration.rst": "test_what_who_runs_it_types",
    "containers.rst": "vm/test_containers.py",
    "embedding.rst": "system/test_readme.py",
    "debian.rst": "packaging/test_deb.py",
    "gateways.rst": "system/test_gateway_files.py",
    "install.rst": "system/test_readme.py",
    "interface.rst": "test_an_interface_with_addresses",
    "lets-encrypt.rst": "system/test_set_up_pages.py",
    "libvirt.rst": "nobody: see NOT_TYPED",
    "logs.rst": "vm/test_units.py",
    "metrics.rst": "test_what_who_runs_it_types",
    "migrate.rst": "test_the_change_from_another_tunnel",
    "monitoring.rst": "test_the_orders_by_http",
    "over-an-l3-mesh.rst": "test_over_an_l3_mesh",
    "page.rst": "test_the_orders_by_http",
    "proxies.rst": "test_the_rest",
    "proxmox.rst": "system/test_set_up_pages.py",
    "resilience.rst": "test_the_rest",
    "reverse-proxies.rst": "system/test_reverse_proxies.py",
    "security.rst": "test_the_rest",
    "policy.rst": "test_policies_are_understood",
    "status.rst": "test_what_who_runs_it_types",
    "troubleshooting.rst": "test_what_who_runs_it_types",
    "tutorials/branch-behind-a-proxy.rst": "system/test_tutorials.py",
    "tutorials/first-link.rst": "system/test_tutorials.py",
    "tutorials/one-laptop.rst": "system/test_tutorials.py",
    "tutorials/two-hypervisors.rst": "system/test_tutorials.py",
    "units.rst": "vm/test_units.py",
    "upgrade.rst": "system/test_set_up_pages.py",
    "workers.rst": "test_the_rest",
}


def not_typed(command: str) -> bool:
    """Whether no test types the command."""
    return bool(reason(command))


def test_each_command_of_etherws_is_understood() -> None:
    lines = {line for page in pages() for line in all_commands(page) if line.startswith("etherws ")}
    assert len(lines) > 40
    for line in sorted(lines):
        understand(line)


def test_each_page_with_commands_has_a_test_that_types_them() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert TYPED_BY.keys() == {page for page in pages() if all_commands(page)}
    for page, test in TYPED_BY.items():
        if test.startswith("nobody"):
            assert all(map(not_typed, all_commands(page))), page
        else:
            assert (ROOT / "tests" / test).is_file() or f"def {test}(" in here, test


def test_at_most_one_command_in_ten_is_not_typed() -> None:
    """What is typed in truth: ``python -m tests.typed``, after ``make acceptance``."""
    found = [command for _, command in every_command()]
    left_out = [command for command in found if not_typed(command)]
    assert len(left_out) * 10 <= len(found), left_out
    for beginning in NOT_TYPED:
        assert any(command.startswith(beginning) for command in left_out), beginning


def test_the_index_names_each_page_once() -> None:
    index = (DOCS / "index.rst").read_text(encoding="utf-8")
    links = re.findall(r"<([\w/-]+)\.rst>`__", index)
    # What Sphinx reads, and what is read on GitHub.
    tree = re.findall(r"^   ([a-z][\w/-]*)$", index, re.MULTILINE)
    assert sorted(links) == sorted({page.removesuffix(".rst") for page in pages()} - {"index"})
    assert sorted(links) == sorted(set(tree) - {"commands/index", "commands/messages"})


def test_each_link_of_a_page_leads_to_a_file() -> None:
    for page in pages():
        path = DOCS / page
        text = path.read_text(encoding="utf-8")
        targets = re.findall(r"<([^<>\s:]+\.rst)>`__?|^\.\. _\S+: (\S+\.rst)$", text, re.MULTILINE)
        for target in filter(None, (part for found in targets for part in found)):
            assert (path.parent / target).resolve().is_file(), f"{page}: {target}"


def code(language: str) -> list[tuple[str, str]]:
    """The pages and texts of code blocks in this language."""
    found = []
    for page in pages():
        lines = (DOCS / page).read_text(encoding="utf-8")
        blocks = re.findall(rf"^( *)\.\. code-block:: {language}\n\n((?:\1   .*\n|\n)+)", lines, re.MULTILINE)
        found += [(page, textwrap.dedent(text)) for _, text in blocks]
    return found


def test_definitions_of_libvirt_are_xml() -> None:
    found = code("xml")
    assert len(found) >= 3
    assert {ElementTree.fromstring(text).tag for _, text in found} == {"network", "interface"}


@pytest.mark.types
def test_policies_are_understood(tmp_path: Path) -> None:
    found = code("toml")
    assert found
    for _, text in found:
        (tmp_path / "policy.toml").write_text(text)
        done = CliRunner().invoke(main, ["check", str(tmp_path / "policy.toml")])
        assert done.exit_code == 0, done.output
    typed.note("etherws check policy.toml")


def test_all_pages_install_as_the_readme_says() -> None:
    (install,) = (block.commands for block in blocks() if block.heading == "Install")
    assert tuple(commands("proxmox.rst", "Install")) == install
    assert tuple(commands("install.rst", "From a checkout")) == install


@pytest.fixture
def machines(hosts: tuple[Host, Host], tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Two machines, 192.0.2.1 and 192.0.2.2. The first one has all the names of servers in docs/."""
    names = ("host.example", "hypervisor1.example", "server.example", "server.example.org", "lan.example.com")
    with pair(hosts, tmp_path, *names) as made:
        yield made


def set_up(machines: tuple[Machine, Machine]) -> None:
    """A server and a client, by docs/configuration.rst."""
    serve, join = (line for line in commands("configuration.rst", "Make one") if line.startswith("etherws"))
    # Without --client it asks.
    line = invitation(machines[0].types(f"{serve} --client branch1"))
    typed.note(serve)
    machines[1].types(join, asked_for=line)


def to_type(page: str) -> list[str]:
    """The commands of a page that are typed; what ends a process comes last."""
    return sorted((line for line in all_commands(page) if not not_typed(line)), key=lambda line: "stop" in line)


@pytest.mark.packages
def test_what_who_runs_it_types(machines: tuple[Machine, Machine]) -> None:
    server, client = machines
    server.host.program("curl")
    set_up(machines)
    toml = server.folder / "etc/etherws/server/lan.toml"
    toml.write_text(toml.read_text() + 'monitor = "127.0.0.1:9402"\n')
    server.types("systemctl restart etherws-server@lan")
    until(lambda: "branch1" in server.types("etherws status"), "the client to be back")
    (server.folder / "root/policy.toml").write_text("[default]\nmacs = 16\n")
    shutil.copy(client.folder / "etc/etherws/client/lan.token", server.folder / "root/branch1.token")
    for page in ("metrics.rst", "troubleshooting.rst", "bundle.rst", "check.rst", "status.rst"):
        for line in to_type(page):
            if line.startswith("etherws check"):
                # It may find something wrong with the machine on which the tests run, or with the page's names.
                assert server.starts(line).ends() in (0, 1)
            elif line == "etherws bundle":
                server.types(line, "rm etherws-bundle-*")
            else:
                server.types(line)
    assert "ethws0" not in server.host.links()


@pytest.mark.packages
def test_the_orders_by_http(machines: tuple[Machine, Machine]) -> None:
    server, _ = machines
    server.host.program("curl")
    start, *others = [line for line in to_type("monitoring.rst") if line.startswith("etherws")]
    server.types(start)
    ask = [line for line in to_type("monitoring.rst") if line.startswith("curl")]
    for line in [*others, *ask]:
        server.types(line.replace("curl", "curl -sS", 1))
        typed.note(line)
    until(lambda: "ethws0" not in server.host.links(), "the end of etherws")
    server.types(*to_type("page.rst"))


@pytest.mark.packages
def test_an_interface_with_addresses(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    serve, *others = commands("interface.rst", "IP addresses")
    one.types(serve)
    assert "bytes from 10.9.0.1" in two.types(*others)


@pytest.mark.packages
def test_a_program_that_adds_a_route(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    one.types(commands("interface.rst", "IP addresses")[0])
    [script] = (text for page, text in code("sh") if page == "interface.rst")
    (two.folder / "etc/etherws").mkdir(exist_ok=True)
    (two.folder / "etc/etherws/up").write_text(script)
    (two.folder / "etc/etherws/up").chmod(0o755)
    two.types(*commands("interface.rst", "Programs"))
    until(lambda: "10.20.0.0/16 via 10.9.0.1" in two.types("ip route"), "the route")


@pytest.mark.packages
def test_over_an_l3_mesh(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    for machine, address in ((one, "10.99.0.1/24"), (two, "10.99.0.2/24")):
        machine.host.add_address("eth0", address)
    with contextlib.closing(Host()) as far:
        one.host.namespace.cable("eth1", far.namespace, "eth0")
        one.host.namespace.configure("eth1")
        far.add_address("eth0", "10.77.0.10/24")
        serve, port, join = all_commands("over-an-l3-mesh.rst")
        one.types(serve, port)
        two.types(join)
        two.host.add_address("br0", "10.77.0.20/24")
        ping = two.host.program("ping")
        until(lambda: two.host.run(ping, "-c1", "-W1", "10.77.0.10").ends() == 0, "a ping to the LAN")


@pytest.mark.packages
def test_the_change_from_another_tunnel(machines: tuple[Machine, Machine]) -> None:
    server, client = machines
    server.types(certificate("server.crt"))
    line = invitation(server.types("etherws init server --host host.example --client branch1 --enable"))
    client.types("etherws init client --no-try", asked_for=line)
    look, check, *change = all_commands("migrate.rst")
    assert "DNS:server.example.org" in server.types(look)
    assert client.starts(check).ends() in (0, 1)
    client.types(*change)
    until(lambda: "connected" in client.types("etherws status lan"), "the connection")


def certificate(name: str) -> str:
    """The command that makes one for server.example.org."""
    return (
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ssl.key -out {name} -subj /CN=server.example.org"
        " -addext subjectAltName=DNS:server.example.org"
    )


@pytest.mark.packages
def test_the_rest(machines: tuple[Machine, Machine]) -> None:
    server, client = machines
    # Nothing listens there: a client says so, and goes on trying.
    assert "cannot" in client.types(*to_type("proxies.rst"))
    client.types("etherws stop")
    for line in to_type("workers.rst"):
        server.types(line, "etherws stop")

    server.types("mkdir /etc/etherws", certificate("ssl.crt"))
    make, serve, join, *bridge, public_key, by_key, by_certificate, with_certificate = to_type("security.rst")
    server.types(make, serve)
    client.types("mkdir /etc/etherws")
    token = (server.folder / "root/branch1.token").read_text()
    (client.folder / "etc/etherws/branch1.token").write_text(token)
    trusted = str(server.folder / "root/ssl.crt")
    assert "connected" in client.types(join, SSL_CERT_FILE=trusted)
    client.types("etherws stop")
    server.types(public_key)
    for name in ("server.pub", "clients.pem"):
        (server.folder / "root" / name).touch()
    shutil.copy(server.folder / "root/server.pub", client.folder / "root")
    client.types(certificate("branch1.crt").replace("ssl.key", "branch1.key"))
    shutil.copy(client.folder / "root/branch1.crt", server.folder / "root/clients.pem")
    # The page's names of files alone; this server asks for a token, too.
    assert "401" in client.types(by_key)
    client.types("etherws stop")
    server.types("etherws stop", by_certificate)
    assert "connected" in client.types(with_certificate, SSL_CERT_FILE=trusted)
    client.types("etherws stop")
    server.types("etherws stop")

    client.types("ip link add br0 type bridge", *bridge)
    server.types("etherws server --pidfile /run/etherws.pid")
    for line in to_type("resilience.rst"):
        # test_readme.py types pip's in a Debian.
        if "/bin/pip " not in line:
            (server if "/run/etherws" in line else client).types(line)
