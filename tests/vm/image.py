"""The disk of the machine that tests/vm/run.py boots: a Debian with its own kernel, the checkout's requirements, and a
unit that runs pytest once all has started. It is made once, kept in ~/.cache/etherws, and made anew when this file or
the requirements change. What it shares with others that need a Debian: tests/lab/debian.py."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.lab import debian

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "etherws"

PACKAGES = (
    *("linux-image-amd64", "systemd-sysv", "dbus", "udev", "kmod", "procps"),
    *("python3-venv", "iproute2", "iputils-ping", "bridge-utils", "ifupdown2", "nftables"),
)

#: The disks' sizes; the files have holes where nothing is written.
ROOT_SIZE, CHECKOUT_SIZE = "4G", "64M"

#: Where the checkout is there: the units see no home directory.
CHECKOUT = "/opt/checkout"

#: Runs pytest once the machine has booted, and ends the machine. What pytest prints goes to the second serial line; the
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
EnvironmentFile={CHECKOUT}/.vm.env
StandardOutput=file:/dev/ttyS1
StandardError=inherit
ExecStartPre=/bin/stty -F /dev/ttyS1 raw -echo
ExecStart=/bin/sh -c 'echo begin; /opt/venv/bin/python -m pytest -m vm @.vm.args; echo "exit status $?"'
[Install]
WantedBy=graphical.target
"""


def key() -> str:
    """What the root depends on: another key means to make it anew."""
    files = ("requirements.txt", "tests/requirements.txt", "setup.py", "tests/vm/image.py", "tests/lab/debian.py")
    return hashlib.sha256(b"".join((debian.CHECKOUT / name).read_bytes() for name in files)).hexdigest()[:16]


def root_disk() -> Path:
    """The folder with the root's disk, its kernel and its initrd. They are made if there are none of this key."""
    folder = CACHE / f"vm-{key()}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "vm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            for old in CACHE.glob("vm-*"):
                shutil.rmtree(old)
            start = time.monotonic()
            print(f"making a Debian machine in {folder}", flush=True)
            with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
                _make(Path(temporary))
                (Path(temporary) / "disk").rename(folder)
            print(f"made in {time.monotonic() - start:.0f} s", flush=True)
    return folder


def _make(folder: Path) -> None:
    """Fill `folder`/disk."""
    root, disk = folder / "root", folder / "disk"
    disk.mkdir()
    debian.bootstrap(root)
    debian.copy_checkout(root / CHECKOUT[1:])
    # No more in the initrd than what reads the disk: without KVM, it takes long to unpack.
    (root / "etc/initramfs-tools/conf.d").mkdir(parents=True)
    (root / "etc/initramfs-tools/conf.d/etherws").write_text("MODULES=list\nCOMPRESS=gzip\n")
    (root / "etc/initramfs-tools/modules").write_text("virtio_pci\nvirtio_blk\next4\n")
    # An init script must not find the services of this machine, whose /proc is there.
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    pip = "/opt/venv/bin/pip install --quiet --disable-pip-version-check"
    debian.install(
        root,
        f"apt-get install -y -q --no-install-recommends {' '.join(PACKAGES)} && apt-get clean",
        f"python3 -m venv /opt/venv && {pip} -r tests/requirements.txt && {pip} --no-deps -e .",
        "ln -s /opt/venv/bin/etherws /usr/local/bin/",
        directory=CHECKOUT,
    )
    policy.unlink()
    (root / "etc/hostname").write_text("vm\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost vm\n")
    (root / "etc/fstab").write_text(f"/dev/vda / ext4 defaults 0 0\n/dev/vdb {CHECKOUT} ext4 defaults 0 0\n")
    (root / "etc/systemd/system/tests.service").write_text(UNIT)
    subprocess.run(debian.arguments(root, "systemctl --quiet enable tests", "/"), check=True)
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy((root / name).resolve(), disk / name)
    make_disk(root, disk / "root.ext4", ROOT_SIZE)


def make_disk(source: Path, image: Path, size: str) -> None:
    """Make an ext4 file system of a folder's files."""
    command = ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", str(source), str(image), size]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
