"""A Debian in a folder: debootstrap makes it, chroot(1) enters it, and the checkout is copied into it. It needs root, a
Debian mirror and, for what pip installs there, a Python package index; both are those of this machine. What the tests
type there: tests/system/test_readme.py. How it boots as a machine: tests/vm/run.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

#: The release, and seconds that a command which fetches packages may take.
RELEASE, PACKAGES_TIMEOUT = "bookworm", 600

#: Where the checkout is in it.
INSIDE = "/root/etherws"

_CERTIFICATES = "etc/pip-cert.pem"

#: The certificate authorities that this machine trusts: its package index may have one of its own.
_TRUSTED = os.environ.get("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt")

#: The machine's own network namespace, where packages are fetched: tests may have put this process into one of theirs.
_MACHINE = os.open("/proc/self/ns/net", os.O_RDONLY)


def outside(command: list[str]) -> list[str]:
    """The arguments that run a command where packages can be fetched."""
    return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{_MACHINE}", *command]


def _fetch(command: list[str]) -> None:
    """Run a command that fetches packages. Raises SubprocessError."""
    subprocess.run(outside(command), check=True, stdout=sys.stderr, timeout=PACKAGES_TIMEOUT)


def bootstrap(root: Path) -> None:
    """Make a bare Debian that reaches what this machine reaches. Raises SubprocessError."""
    # What it mounts there ends with it, also if it is killed.
    _fetch(["unshare", "--mount", "debootstrap", "--variant=minbase", RELEASE, str(root)])
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    if os.path.exists(_TRUSTED):
        shutil.copy(_TRUSTED, root / _CERTIFICATES)


def copy_checkout(target: Path, *, changes: bool = False) -> None:
    """Copy the files of the repository, as they are now, into a folder; with `changes` the new ones, too."""
    others = ["--cached", "--others", "--exclude-standard"] if changes else []
    # Root may test a checkout of another user, which git does not trust.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", *others]
    names = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (CHECKOUT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, target / name)


#: Has this machine's /proc, /sys and /dev there for one command. The mounts are its own and end with it: what removes
#: the folder later never meets them.
_ENTER = """
for folder in proc sys dev; do mount --bind "/$folder" "$1/$folder"; done
exec chroot "$@"
"""


def arguments(root: Path, command: str, directory: str = INSIDE) -> list[str]:
    """The arguments that run a shell command in it."""
    environ = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"]
    if (root / _CERTIFICATES).exists():
        environ.append(f"PIP_CERT=/{_CERTIFICATES}")
    environ.append("DEBIAN_FRONTEND=noninteractive")
    enter = ["unshare", "--mount", "sh", "-euc", _ENTER, "sh", str(root)]
    return [*enter, "env", "-i", *environ, "sh", "-c", f"cd {directory} && {command}"]


def install(root: Path, *commands: str, directory: str = INSIDE) -> None:
    """Run shell commands in it that fetch packages. Raises SubprocessError."""
    for command in commands:
        _fetch(arguments(root, command, directory))
