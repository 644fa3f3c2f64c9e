"""Machines on which the commands of docs/ are typed as they stand: each has folders of its own in the places of the
system's, a command ``etherws``, and a ``systemctl`` that starts what a unit would start. Read next: readme.py, which
finds the commands; tests/system/test_tutorials.py and tests/system/test_pages.py, which type them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import typed
from tests.lab.hosts import PATIENCE, Host, Process
from tests.lab.readme import README, blocks

DOCS = README.parent / "docs"

#: What of the system's /etc the programs need: libraries, names of users and protocols, OpenSSL's settings.
_ETC = (
    *("ld.so.cache", "passwd", "group", "nsswitch.conf", "protocols", "services", "ssl", "alternatives", "iproute2"),
    *("network", "netplan"),
)

#: Begins each command: folders of this machine's own, in a mount namespace of its own. $1 is where they are, $2 what is
#: typed. A test may make opt, too, where no Python and no checkout is below /opt.
_ENTER = """
mount --make-rprivate /
for folder in etc opt run var; do [ ! -d "$1/$folder" ] || mount --bind "$1/$folder" "/$folder"; done
mount -t sysfs sysfs /sys
cd "$1/root"
exec sh -c "$2"
"""

#: It does what the units of contrib/ do, as far as a tutorial can tell: they run etherws with this configuration. What
#: another unit runs is a program in systemctl.d, or nothing.
SYSTEMCTL = """#!/bin/sh
for unit; do :; done
role=${unit#etherws-}; role=${role%%@*}; name=${unit#*@}; name=${name%.service}
case " $* " in
    *" --now "* | *" start "*) ;;
    *" enable "* | *" disable "* | *" daemon-reload "*) exit 0 ;;
    *" is-active "*) exit 3 ;;
    *" reload "*"@*.service ") exec etherws reload ;;
    *" reload "*) exec etherws reload "$name" ;;
    *" restart "*) etherws stop "$name" >/dev/null 2>&1 ;;
esac
case $unit in
    etherws-server@* | etherws-client@*) ;;
    *) [ ! -x "$0.d/$unit" ] || exec "$0.d/$unit"; exit 0 ;;
esac
case " $* " in *" disable "*) etherws stop "$name" >/dev/null 2>&1; exit 0 ;; esac
unset https_proxy
folder=/run/etherws/$role-$name
mkdir -p -m 755 "$folder"
case $role in
    server) export ETHERWS_SERVER_CONTROL="$folder/control" ;;
    client) export ETHERWS_CLIENT_CONTROL="$folder/control" ;;
esac
exec etherws "$role" --config "/etc/etherws/$role/$name.toml"
"""


class Machine:
    """A host with folders of its own below `folder`, and names of others in its /etc/hosts."""

    def __init__(self, host: Host, folder: Path, names: dict[str, str]) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can mount")
        host.needs_mounts()
        self.host, self.folder = host, folder
        for name in ("etc/dhcp", "etc/systemd/system", "run/systemd/system", "var/lib/dhcp", "var/tmp", "root", "bin"):
            (folder / name).mkdir(parents=True)
        (folder / "var/run").symlink_to("/run")
        for name in _ETC:
            if os.path.exists(f"/etc/{name}"):
                (folder / "etc" / name).symlink_to(self._kept(name))
        hosts = "".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **names}.items())
        (folder / "etc/hosts").write_text(hosts)
        for name, text in (
            ("systemctl", SYSTEMCTL),
            ("etherws", f'#!/bin/sh\nexec {sys.executable} -m etherws "$@"\n'),
        ):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        # Commands are typed in a checkout.
        (folder / "root/contrib").symlink_to(README.parent / "contrib")

    def _kept(self, name: str) -> str:
        """A copy of a file or folder of the system's /etc, which is out of sight in a command."""
        copy = self.folder / "etc.system" / name
        copy.parent.mkdir(exist_ok=True)
        # It leaves out links that lead nowhere.
        subprocess.run(["cp", "-aL", f"/etc/{name}", str(copy)], check=False)
        return str(copy)

    def starts(self, command: str, **environ: str) -> Process:
        """Start a command as root would type it."""
        typed.note(command)
        path = f"{self.folder}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        env = [f"PATH={path}", "HOME=/root", "LC_ALL=C.UTF-8", f"PYTHONPATH={README.parent}"]
        env += [f"{name}={value}" for name, value in environ.items()]
        arguments = ["sh", "-euc", _ENTER, "sh", str(self.folder), command]
        return self.host.run("env", "-i", *env, "unshare", "--mount", *arguments)

    def types(self, *commands: str, asked_for: str = "", **environ: str) -> str:
        """Type commands, and wait for their ends; return what the last one prints. `asked_for` is typed when the first
        one asks."""
        output = ""
        for command in commands:
            line = shown_once(command)
            process = self.starts(answered(line, asked_for) if asked_for and not output else line, **environ)
            # Some start several programs, and wait for each.
            assert process.ends(3 * PATIENCE) == 0, f"{command}\n{process.output}"
            typed.note(command)
            output = process.output
        return output


@contextlib.contextmanager
def pair(hosts: tuple[Host, Host], folder: Path, *names: str) -> Iterator[tuple[Machine, Machine]]:
    """Two machines, which end with what was started on them. The first one has these names."""
    known = dict.fromkeys(names, "192.0.2.1")
    made = [Machine(host, folder / name, known) for name, host in zip(("one", "two"), hosts, strict=True)]
    yield made[0], made[1]
    for machine in made:
        assert machine.host.namespace.end(10)


def shown_once(command: str) -> str:
    """A command that goes on until Ctrl-C, ended after it has shown something."""
    endless = re.search(r"--watch|--follow|follow=1|^journalctl .*-f\b|^ping (?!.*-c)", command)
    return f"timeout -s INT 3 {command} || true" if endless else command


def answered(command: str, answer: str) -> str:
    """A command that asks for one line, with this answer typed."""
    return f"printf '%s\\n' {shlex.quote(answer)} | {command}"


def invitation(output: str) -> str:
    """The line for the other side, in what etherws init server has printed."""
    found = re.findall(r"^etherws-invitation:\S+$", output, re.MULTILINE)
    assert len(found) == 1, output
    return str(found[0])


def pages() -> list[str]:
    """The names of all pages of docs/ that are written by hand, below docs/."""
    made = {"_build", "commands"}
    found = (path.relative_to(DOCS) for path in DOCS.glob("**/*.rst"))
    return sorted(path.as_posix() for path in found if path.parts[0] not in made)


def all_commands(page: str) -> list[str]:
    """The commands of a page. A comment in a configuration file, which begins with the file's name, is none."""
    found = [command for block in blocks(DOCS / page) for command in block.commands]
    return [command for command in found if not command.startswith("/etc/")]


def commands(page: str, heading: str) -> list[str]:
    """The commands below this heading of a page of docs/."""
    return [command for block in blocks(DOCS / page) if block.heading == heading for command in block.commands]
