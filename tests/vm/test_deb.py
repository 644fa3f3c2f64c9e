"""The Debian package on a machine with systemd: installed, upgraded while links run, taken back, removed and purged.

All of it happens on the same machine, in the order of this file: each test finds what the one before has left.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import typed
from tests.lab.hosts import until
from tests.lab.pages import commands
from tests.lab.units import INSTALLED, links, run
from tests.vm.package import FOLDER

pytestmark = [pytest.mark.vm, pytest.mark.long_vm, pytest.mark.xdist_group("machine")]

ROOT = Path(__file__).resolve().parents[2]

#: The command of another installation, as README has it: the machine's own.
OTHER = Path("/usr/local/bin/etherws")

#: Where that is meanwhile.
THEIRS = Path("/root/etherws-of-others")

#: Where a package may leave something.
PLACES = ("/etc", "/usr", "/var/lib", "/run/etherws", "/opt")

#: What changes there by itself, or by dpkg and systemd.
OF_OTHERS = re.compile(
    r"/var/lib/(dpkg|apt|systemd|private$)|/usr/share/info|/var/lib/man|/etc/(ld\.so\.cache|\.pwd\.lock|.*-$)|.*/__pycache__"
)

#: Seconds between two pings, and the two machines whose links are pinged.
TICK = 0.01
NAMES = ("a", "b")


def files() -> set[str]:
    """The files, folders and links that are there now."""
    found = run(
        "find", *(place for place in PLACES if Path(place).exists()), "-xdev", "-not", "-path", "/opt/checkout/*"
    )
    return {path for path in found.splitlines() if not OF_OTHERS.match(path)}


def apt(*arguments: str, safe: bool = False) -> str:
    """What apt prints; the seconds that it took are printed. It asks nothing: nobody would answer. It waits for the
    disk after each file only if it is to be `safe`, as usual: that takes long without KVM."""
    begun = time.monotonic()
    options = ["-y", "-qq", "--no-install-recommends", "--allow-downgrades"]
    options += [] if safe else ["-o", "Dpkg::Options::=--force-unsafe-io"]
    done = subprocess.run(
        ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *options, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(f"apt-get {' '.join(arguments)} took {time.monotonic() - begun:.1f} s")
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    return done.stdout


class Instance:
    """One of the four: a server or a client."""

    def __init__(self, role: str, name: str) -> None:
        self.role, self.name, self.unit = role, name, f"etherws-{role}@{name}.service"

    def property(self, name: str) -> str:
        return run("systemctl", "show", "--value", f"--property={name}", self.unit).strip()

    def status(self, key: str) -> object:
        """A value that it says of itself; None while nobody answers, as during a hand-over."""
        command = ["/usr/bin/etherws", "status", "--json", f"{self.role}-{self.name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return None if done.returncode else json.loads(done.stdout)[key]

    def is_connected(self) -> None:
        """Wait until it is active, and, if it is a client, connected."""
        until(lambda: self.property("ActiveState") == "active", lambda: f"{self.unit} to be active")
        if self.role == "client":
            until(lambda: self.status("state") == "connected", lambda: f"{self.unit} to be connected")


INSTANCES = [Instance(role, name) for name in NAMES for role in ("server", "client")]

#: Nobody starts it.
IDLE = Instance("client", "idle")


def built(tree: Path, version: str, *, broken: bool = False) -> Path:
    """The package of this tree, as of another version; a broken one cannot serve. The tree stays as it was."""
    code = next(tree.glob("usr/lib/etherws/lib/python3.*/site-packages/etherws"))
    changes = {code / "__init__.py": ("2.0.0.dev0", version), tree / "DEBIAN/control": ("2.0.0~dev0", version)}
    texts = {path: path.read_text() for path in (*changes, code / "server/serve.py")}
    for path, (old, new) in changes.items():
        assert old in texts[path]
        path.write_text(texts[path].replace(old, new))
    if broken:
        (code / "server/serve.py").write_text('raise RuntimeError("this version is broken")\n')
    # Its bytecode is of the old text, whose time and size are checked.
    for name in ("__init__", "server/serve"):
        for path in code.glob(f"{Path(name).parent}/__pycache__/{Path(name).name}.*"):
            path.unlink()
    target = tree.with_name(f"etherws_{version}.deb")
    run("dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(target))
    for path, text in texts.items():
        path.write_text(text)
    return target


@pytest.fixture(scope="module")
def package() -> Path:
    """The .deb, which tests/vm/run.py has put there."""
    (found,) = (ROOT / FOLDER).glob("etherws_*.deb")
    return found


@pytest.fixture(scope="module")
def tree(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in the package."""
    folder = tmp_path_factory.mktemp("packages") / "tree"
    run("dpkg-deb", "--raw-extract", str(package), str(folder))
    return folder


@pytest.fixture(scope="module")
def newer(tree: Path) -> Path:
    return built(tree, "2.1")


@pytest.fixture(scope="module")
def before() -> Iterator[set[str]]:
    """The machine has no other installation; what was there then. At the end it is as it was."""
    OTHER.rename(THEIRS)
    found = files()
    try:
        yield found
    finally:
        subprocess.run(["dpkg", "--purge", "etherws"], check=False)
        if THEIRS.is_symlink():
            THEIRS.rename(OTHER)


@pytest.fixture(scope="module")
def machines() -> Iterator[None]:
    """For each link two namespaces, with a cable to the server's and to the client's bridge, and an address."""
    names = [f"{name}{end}" for name in NAMES for end in (1, 2)]
    for name in names:
        run("ip", "netns", "add", name)
        run("ip", "link", "add", f"br{name}", "type", "bridge")
        run("ip", "link", "add", f"vnet{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", f"vnet{name}", "master", f"br{name}", "up")
        run("ip", "link", "set", f"br{name}", "up")
        run("ip", "-n", name, "address", "add", f"10.0.0.{name[1]}/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
    try:
        yield
    finally:
        for name in names:
            run("ip", "link", "delete", f"br{name}")
            run("ip", "netns", "delete", name)


def passes(name: str) -> None:
    """Wait for a ping through the link."""
    ping = ["ip", "netns", "exec", f"{name}1", "ping", "-c1", "-W1", "10.0.0.2"]
    until(lambda: subprocess.run(ping, capture_output=True, check=False).returncode == 0, f"a ping by link {name}")


@contextlib.contextmanager
def pinged(what: str) -> Iterator[None]:
    """Ping through both links meanwhile, and print the longest time without an answer."""
    pings = []
    for name in NAMES:
        line = ["ip", "netns", "exec", f"{name}1", "ping", "-D", "-n", "-i", str(TICK), "10.0.0.2"]
        pings.append(subprocess.Popen(line, stdout=subprocess.PIPE, text=True))
    try:
        yield
        for name in NAMES:
            passes(name)
    finally:
        for ping in pings:
            ping.terminate()
        for name, ping in zip(NAMES, pings, strict=True):
            text, _ = ping.communicate()
            times = [float(found) for found in re.findall(r"^\[([\d.]+)\] .*icmp_seq", text, re.MULTILINE)]
            gap = max((after - before for before, after in itertools.pairwise(times)), default=-1)
            print(f"{what}: link {name}, {len(times)} answers, the longest time without one {gap:.2f} s")


def state() -> list[tuple[str, str, object]]:
    """What an upgrade leaves as it is: process, restarts, and interface of each instance."""
    found = links()
    devices = {name: found[name]["ifindex"] for name in ("ethwsa1", "ethwsa2", "ethwsb1", "ethwsb2")}
    return [(each.property("MainPID"), each.property("NRestarts"), devices) for each in INSTANCES]


def test_it_is_installed_and_set_up(before: set[str], package: Path, machines: None, tmp_path: Path) -> None:
    load = Path("/proc/loadavg").read_text().split()[0]
    installation = time.monotonic()
    printed = apt("install", str(package), safe=True)
    assert "etherws:" not in printed
    assert run("sh", "-c", "command -v etherws").strip() == "/usr/bin/etherws"
    begun = time.monotonic()
    for number, name in enumerate(NAMES):
        line = tmp_path / name
        place = ["--bridge", f"br{name}1", "--device", f"ethws{name}1", "--enable"]
        host = f"127.0.0.1:{8443 + number}"
        run("etherws", "init", "server", name, "--host", host, "--client", name, "--out", str(line), *place)
        place = ["--bridge", f"br{name}2", "--device", f"ethws{name}2", "--enable"]
        run("etherws", "init", "client", name, "--invitation", str(line), *place)
        passes(name)
        now = time.monotonic()
        print(f"link {name} by etherws init took {now - begun:.1f} s, and with all before {now - installation:.1f} s")
        begun = now
    print(f"the load was {load} and is {Path('/proc/loadavg').read_text().split()[0]}")
    # It is enabled, but does not run.
    run("systemctl", "enable", "--quiet", IDLE.unit)
    # init has used the package's units.
    assert not list(INSTALLED.glob("etherws-*@.service"))
    for each in INSTANCES:
        each.is_connected()
        assert each.property("FragmentPath").removeprefix("/usr") == f"/lib/systemd/system/etherws-{each.role}@.service"
        assert each.status("version") == "2.0.0.dev0"


def test_an_upgrade_leaves_links_processes_and_changed_files(newer: Path) -> None:
    change = "# a change by hand\n"
    paths = [Path("/etc/etherws/server/a.toml"), Path("/etc/default/etherws-client-b")]
    texts = []
    for path in paths:
        text = path.read_text() if path.exists() else ""
        texts.append(text + change)
        path.write_text(text + change)
    was = state()
    with pinged("upgrade"):
        printed = apt("install", str(newer))
    assert [path.read_text() for path in paths] == texts
    for each in INSTANCES:
        assert f"etherws: {each.unit} goes on as version 2.1-1+debian12" in printed
        each.is_connected()
        assert each.status("version") == "2.1"
    assert state() == was
    assert IDLE.property("ActiveState") == "inactive"


def test_a_broken_version_takes_over_nothing(tree: Path) -> None:
    broken = built(tree, "2.2", broken=True)
    was = state()
    printed = apt("install", str(broken))
    for each in INSTANCES:
        if each.role == "client":
            assert f"etherws: {each.unit} goes on as version 2.2-1+debian12" in printed
        else:
            assert re.search(rf"etherws: {each.unit} goes on as the version before: .*this version is broken", printed)
            assert each.property("ActiveState") == "active"
    for name in NAMES:
        passes(name)
    assert state() == was


def test_a_downgrade_with_half_of_a_configuration(newer: Path) -> None:
    path = Path("/etc/etherws/server/a.toml")
    text = path.read_text()
    path.write_text(text[: text.index("keyfile") + 12])
    was = state()
    printed = apt("install", str(newer))
    assert re.search(r"etherws: etherws-server@a.service goes on as the version before: .*a\.toml.*'\\n'", printed)
    assert "etherws: etherws-server@b.service goes on as version 2.1-1+debian12" in printed
    for name in NAMES:
        passes(name)
    assert state() == was
    path.write_text(text)
    run("systemctl", "restart", "etherws-server@a")
    passes("a")
    assert INSTANCES[0].status("version") == "2.1"


def test_a_removal_stops_all_and_an_installation_starts_it(newer: Path) -> None:
    run("systemctl", "disable", "--quiet", IDLE.unit)
    apt("remove", "etherws")
    assert not {"ethwsa1", "ethwsa2", "ethwsb1", "ethwsb2"} & set(links())
    assert not Path("/usr/lib/etherws").exists()
    assert Path("/etc/etherws/server/a.toml").exists()
    apt("install", str(newer))
    for name in NAMES:
        passes(name)


def test_a_purge_leaves_nothing(before: set[str]) -> None:
    apt("purge", "etherws")
    assert files() - before == set()
    assert before - files() == set()
    assert run("systemctl", "list-units", "--all", "--plain", "--no-legend", "etherws-*") == ""
    assert not subprocess.run(
        "grep -l /usr/lib/etherws /proc/[0-9]*/maps", shell=True, check=False, capture_output=True
    ).stdout


def test_beside_another_installation_and_in_its_place(before: set[str], newer: Path) -> None:
    THEIRS.rename(OTHER)
    unit = INSTALLED / "etherws-server@.service"
    shutil.copy(ROOT / "contrib/etherws-server@.service", unit)
    Path("/etc/etherws/server").mkdir(parents=True)
    config = Path("/etc/etherws/server/other.toml")
    config.write_text('address = "127.0.0.1"\nport = 8445\ndevice = "other0"\n')
    run("systemctl", "daemon-reload")
    server = Instance("server", "other")
    run("systemctl", "start", server.unit)
    pid = server.property("MainPID")
    printed = apt("install", str(newer))
    assert f"{OTHER} is of another installation, and comes first in PATH" in printed
    assert f"{unit} comes before the package's unit" in printed
    printed = apt("purge", "etherws")
    assert "/etc/etherws and /var/lib/etherws* stay" in printed
    assert config.exists()
    assert server.property("MainPID") == pid

    apt("install", str(newer))
    was = links()["other0"]["ifindex"]
    # It must come back for the tests of other files.
    shutil.copy(OTHER, THEIRS, follow_symlinks=False)
    for command in commands("debian.rst", "Beside another installation"):
        typed.note(command)
        run("sh", "-c", command)
    until(lambda: server.property("ActiveState") == "active", "the package's server")
    assert server.property("FragmentPath").removeprefix("/usr").startswith("/lib/systemd/system/")
    assert server.status("version") == "2.1"
    assert links()["other0"]["ifindex"] == was
    apt("purge", "etherws")
    assert files() == before
