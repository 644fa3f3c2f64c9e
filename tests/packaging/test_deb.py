"""The Debian package on bare Debians: ``make deb`` builds it on one, apt installs, changes and purges it on another."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import debian, typed
from tests.lab.pages import commands
from tests.vm.package import FOLDER, copy_package

pytestmark = pytest.mark.packages

ROOT = Path(__file__).resolve().parents[2]

#: Where the package is there.
HERE = "/root"

#: Prints the files, folders and links that are there, but for what apt and dpkg keep.
LIST = (
    "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /root -o -path /var/lib/dpkg"
    " -o -path /var/lib/apt -o -path /var/cache -o -path /var/log \\) -prune -o -print"
)


def run(root: Path, command: str, *, status: int = 0) -> str:
    """What a command prints in the Debian."""
    line = debian.outside(debian.arguments(root, command, HERE))
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == status, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bare Debian with the package's file in it."""
    folder = tmp_path_factory.mktemp("debian") / "root"
    debian.bootstrap(folder)
    copy_package(folder / HERE[1:] / FOLDER)
    typed.note(*commands("debian.rst", "Build"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def apt(root: Path, command: str) -> str:
    """Type a command of docs/debian.rst; nobody is there to answer."""
    typed.note(command)
    return run(root, command.replace("apt ", "apt-get -y -q --no-install-recommends ", 1))


def test_apt_installs_it_and_purges_it(root: Path) -> None:
    # What the package depends on stays.
    run(root, "apt-get install -y -q --no-install-recommends python3.11")
    before = set(run(root, LIST).splitlines())
    (install,) = commands("debian.rst", "Install")
    apt(root, install)
    assert run(root, "command -v etherws").strip() == "/usr/bin/etherws"
    assert run(root, "etherws --version").startswith("etherws, version 2.")
    for path in (
        *("lib/systemd/system/etherws-server@.service", "lib/systemd/system/etherws-server@.socket"),
        *("share/man/man1/etherws.1.gz", "share/man/man5/etherws.toml.5.gz", "share/doc/etherws/copyright"),
        *("share/bash-completion/completions/etherws", "share/zsh/vendor-completions/_etherws"),
        *("share/fish/vendor_completions.d/etherws.fish", "share/doc/etherws/examples/certbot-deploy-hook"),
    ):
        assert (root / "usr" / path).is_file(), path
    assert "/usr/local" not in (root / "usr/lib/systemd/system/etherws-server@.service").read_text()
    run(root, "etherws init server lan --host 192.0.2.1 --client branch1 --out line")
    run(root, "etherws init client lan --invitation line --no-try")
    changed = [root / "etc/etherws/server/lan.toml", root / "etc/default/etherws-client-lan"]
    for each in changed:
        each.parent.mkdir(exist_ok=True)
        with each.open("a") as file:
            file.write("# a change by hand\n")
    texts = [each.read_text() for each in changed]
    # Python writes bytecode where a file has been changed.
    run(root, "touch /usr/lib/etherws/lib/python3.11/site-packages/etherws/*.py && etherws --version")
    apt(root, install.replace("install ", "install --reinstall ", 1))
    remove, purge = commands("debian.rst", "Remove")
    apt(root, remove)
    assert [each.read_text() for each in changed] == texts
    assert not (root / "usr/lib/etherws").exists()
    apt(root, install)
    assert [each.read_text() for each in changed] == texts
    apt(root, purge)
    after = set(run(root, LIST).splitlines())
    assert after - before == set()
    assert before - after == set()


def test_who_is_not_root_hears_what_is_missing(root: Path) -> None:
    checkout = root / "srv/checkout"
    debian.copy_checkout(checkout)
    run(root, "chmod -R a+rX /srv")
    printed = run(root, "cd /srv/checkout && setpriv --reuid=65534 --clear-groups sh contrib/deb/build", status=1)
    assert "not root: install these packages first: " in printed
    assert "dpkg-dev" in printed


def test_a_purge_needs_no_systemd_and_follows_no_link(root: Path) -> None:
    """Its script alone. What is behind a link is somebody's own."""
    shutil.copy(ROOT / "contrib/deb/postrm", root / HERE[1:])
    run(root, "mkdir -p /srv/theirs /var/lib/etherws-server-lan && touch /srv/theirs/file && mv /etc/systemd /srv")
    run(root, "ln -s /srv/theirs /etc/etherws && ln -s /srv/theirs /var/lib/etherws-server-lan/link")
    run(root, "sh postrm purge && rm postrm && mv /srv/systemd /etc")
    assert run(root, "ls /srv/theirs") == "file\n"
    run(root, "rm -r /srv/theirs")
    assert not os.path.lexists(root / "etc/etherws")
    assert not (root / "var/lib/etherws-server-lan").exists()


#: In place of systemctl: notes what it is asked. The unit of the instance "other" is of another installation.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>/asked
case $* in
*FragmentPath*@other*) echo /etc/systemd/system/etherws-server@.service ;;
*FragmentPath*) echo /lib/systemd/system/etherws-server@.service ;;
*MainPID*) cat /pid 2>/dev/null || echo 0 ;;
*ActiveState*) echo active ;;
list-units*) echo "etherws-server@lan.service loaded active running" ;;
esac
"""

#: A process whose file the upgrade has replaced.
OLD = (
    "mkdir -p /usr/lib/etherws && cp /bin/sleep /usr/lib/etherws && { /usr/lib/etherws/sleep 60 >/dev/null 2>&1 &"
    " echo $! >/pid; until grep -q /usr/lib/etherws /proc/$!/maps; do sleep 0.1; done; rm -r /usr/lib/etherws; }"
)


@pytest.fixture
def asked(root: Path) -> Iterator[Path]:
    """The Debian looks as if systemd ran, with two instances that are enabled. What its systemctl is asked is there."""
    wants = root / "etc/systemd/system/multi-user.target.wants"
    for name in ("prerm", "postinst"):
        shutil.copy(ROOT / "contrib/deb" / name, root / HERE[1:])
    for name, text in (("systemctl", SYSTEMCTL), ("dpkg-query", "#!/bin/sh\necho 2.1\n")):
        (root / "usr/local/bin" / name).write_text(text)
        (root / "usr/local/bin" / name).chmod(0o755)
    run(root, f"mkdir -p /run/systemd/system /{wants.relative_to(root)}")
    for name in ("lan", "other"):
        (wants / f"etherws-server@{name}.service").symlink_to("/nowhere")
    yield root / "asked"
    run(root, "rm -rf /asked /pid prerm postinst /run/systemd/system /usr/local/bin/* /usr/sbin/policy-rc.d")
    shutil.rmtree(wants)


def policy(root: Path, status: int) -> None:
    """Have the administrator's policy answer everything with this status (policy-rc.d(8))."""
    (root / "usr/sbin/policy-rc.d").write_text(f"#!/bin/sh\ncat >/dev/null\nexit {status}\n")
    (root / "usr/sbin/policy-rc.d").chmod(0o755)


@pytest.mark.parametrize(("status", "starts"), [(None, True), (0, True), (101, False), (104, True)])
def test_an_installation_starts_what_is_enabled_and_its_own(
    root: Path, asked: Path, status: int | None, starts: bool
) -> None:
    if status is not None:
        policy(root, status)
    run(root, "touch /run/etherws-installed && sh postinst configure 2.0")
    started = [line for line in asked.read_text().splitlines() if " start " in line]
    assert started == (["--no-block start etherws-server@lan.service"] if starts else [])


def test_what_an_interrupted_removal_has_stopped_starts_again(root: Path, asked: Path) -> None:
    """To dpkg the installation that follows is an upgrade."""
    run(root, "sh prerm remove && sh postinst configure 2.0")
    orders = [line for line in asked.read_text().splitlines() if re.search(r"\b(start|stop)\b", line)]
    assert orders == ["stop etherws-server@lan.service", "--no-block start etherws-server@lan.service"]


@pytest.mark.parametrize(("status", "touches"), [(101, False), (104, True)])
def test_an_upgrade_asks_the_policy(root: Path, asked: Path, status: int, touches: bool) -> None:
    policy(root, status)
    printed = run(root, f"{OLD}; sh postinst configure 2.0; kill $(cat /pid) 2>/dev/null || true")
    assert ("reload etherws-server@lan.service" in asked.read_text()) is touches
    if touches:
        assert "the version before" not in printed
    else:
        assert "etherws-server@lan.service goes on as the version before: /usr/sbin/policy-rc.d forbids" in printed


def test_lintian_finds_no_error(root: Path) -> None:
    run(root, "apt-get install -y -q --no-install-recommends lintian")
    assert run(root, f"lintian --allow-root --fail-on error {FOLDER}/*.deb").count("E: ") == 0
