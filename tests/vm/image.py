"""The disk of the machine that tests/vm/run.py boots: a Debian with its own kernel, the checkout's requirements, and a
unit that runs a script of the checkout once all has started. It is made anew when what it is made of changes. How it is
kept: tests/lab/disks.py. What it shares with others that need a Debian: tests/lab/debian.py."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import time
from pathlib import Path

from tests.lab import debian, disks

PACKAGES = (
    *("linux-image-amd64", "systemd-sysv", "dbus", "udev", "kmod", "procps", "libcap2-bin", "openssl"),
    *("python3-venv", "iproute2", "iputils-ping", "bridge-utils", "ifupdown2", "net-tools", "nftables"),
    *("podman", "crun", "netavark", "iptables", "busybox-static"),
)

#: What contrib/Containerfile installs. The base of its image has them here: the machine has no network.
BASE_PACKAGES = ("ca-certificates", "python3", "python3-pip")

#: For images of containers: the base as a tar file, and the wheels that pip finds in place of an index.
CONTAINERS = "/opt/containers"

#: The disks' sizes; the files have holes where nothing is written.
ROOT_SIZE, CHECKOUT_SIZE = "4G", "64M"

#: How many disks are kept, of 1 GB each: two checkouts of different requirements must not take each other's away.
KEPT = 3

#: Where the checkout is there: the units see no home directory.
CHECKOUT = "/opt/checkout"

#: What the machine runs, in its checkout; and its Python.
SCRIPT, PYTHON = ".vm.sh", "/opt/venv/bin/python"

#: Runs the script once the machine has booted, and ends the machine. What it prints goes to the second serial line; the
#: console has the first.
UNIT = f"""\
[Unit]
Description=Tests
After=multi-user.target getty.target
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate
[Service]
Type=oneshot
TimeoutStartSec=infinity
WorkingDirectory={CHECKOUT}
StandardOutput=file:/dev/ttyS1
StandardError=inherit
ExecStartPre=/bin/stty -F /dev/ttyS1 raw -echo
ExecStart=/bin/sh -c 'echo begin; sh {SCRIPT}; echo "exit status $?"'
[Install]
WantedBy=graphical.target
"""

#: Units that would do what no test needs, in the same minutes.
MASKED = "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer"


def key() -> str:
    """What the disk is made of: another key means to make it anew."""
    files = (
        *("requirements.txt", "tests/requirements.txt", "setup.py"),
        *("tests/vm/image.py", "tests/lab/debian.py", "tests/lab/disks.py"),
    )
    return hashlib.sha256(b"".join((debian.CHECKOUT / name).read_bytes() for name in files)).hexdigest()[:16]


def root_disk() -> contextlib.AbstractContextManager[Path]:
    """The folder with the root's disk, its kernel and its initrd, which nobody removes until the block ends. They are
    made if there are none of this key. Raises OSError and SubprocessError."""
    return disks.kept("vm", key(), KEPT, _make)


def _make(folder: Path) -> None:
    """Fill `folder`/disk."""
    root, begun = folder / "root", time.monotonic()
    debian.bootstrap(root)
    print(f"debootstrap took {time.monotonic() - begun:.0f} s", flush=True)
    subprocess.run(["cp", "--archive", str(root), str(folder / "base")], check=True)
    debian.copy_checkout(root / CHECKOUT[1:])
    _make_base(folder / "base", root / CONTAINERS[1:])
    pip = "/opt/venv/bin/pip install --quiet --disable-pip-version-check"
    disks.install(
        root,
        f"apt-get install -y -q --no-install-recommends {' '.join(PACKAGES)} && apt-get clean",
        f"python3 -m venv /opt/venv && {pip} -r tests/requirements.txt && {pip} --no-deps -e .",
        "ln -s /opt/venv/bin/etherws /usr/local/bin/",
        directory=CHECKOUT,
    )
    (root / "etc/hostname").write_text("vm\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost vm\n")
    (root / "etc/fstab").write_text(f"/dev/vda / ext4 defaults 0 0\n/dev/vdb {CHECKOUT} ext4 defaults 0 0\n")
    (root / "etc/systemd/system/tests.service").write_text(UNIT)
    disks.finish(root, folder / "disk", ROOT_SIZE, "enable tests", f"mask {MASKED}")


def _make_base(base: Path, target: Path) -> None:
    """Fill the folder `target` with what containers are made of, by a bare Debian in the folder `base`."""
    (base / "wheels").mkdir()
    shutil.copy(debian.CHECKOUT / "requirements.txt", base / "wheels")
    (base / "etc/machine-id").unlink(missing_ok=True)
    debian.install(
        base,
        f"apt-get install -y -q --no-install-recommends {' '.join(BASE_PACKAGES)} && apt-get clean",
        # It takes setuptools to make a wheel of the checkout.
        "pip download --quiet --dest /wheels --requirement /wheels/requirements.txt 'setuptools>=64' wheel",
        directory="/",
    )
    target.mkdir()
    shutil.move(base / "wheels", target)
    # As in the image of a registry, but for its sources of packages: there are none.
    (base / "etc/apt/sources.list").write_text("")
    unused = [f"./{name}/*" for name in ("dev", "var/lib/apt/lists", "usr/share/doc", "usr/share/man")]
    unused += ["./usr/share/locale/*", "./etc/resolv.conf", "./etc/pip-cert.pem"]
    command = ["tar", "--create", f"--directory={base}", f"--file={target}/base.tar", "--wildcards"]
    subprocess.run([*command, *(f"--exclude={name}" for name in unused), "."], check=True)
