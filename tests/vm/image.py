"""The disk of the machine that tests/vm/run.py boots: a Debian with its own kernel, the checkout's requirements, and a
unit that runs a script of the checkout once all has started. It is made once, kept in ~/.cache/etherws, and made anew
when what it is made of changes. What it shares with others that need a Debian: tests/lab/debian.py."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab import debian

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "etherws"

PACKAGES = (
    *("linux-image-amd64", "systemd-sysv", "dbus", "udev", "kmod", "procps", "libcap2-bin", "openssl"),
    *("python3-venv", "iproute2", "iputils-ping", "bridge-utils", "ifupdown2", "net-tools", "nftables"),
)

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
    files = ("requirements.txt", "tests/requirements.txt", "setup.py", "tests/vm/image.py", "tests/lab/debian.py")
    return hashlib.sha256(b"".join((debian.CHECKOUT / name).read_bytes() for name in files)).hexdigest()[:16]


@contextlib.contextmanager
def root_disk() -> Iterator[Path]:
    """The folder with the root's disk, its kernel and its initrd, which nobody removes until the block ends. They are
    made if there are none of this key; one process makes them while others wait. Raises OSError and SubprocessError."""
    folder = CACHE / f"vm-{key()}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _locked(CACHE / "vm.lock", fcntl.LOCK_EX):
            if not folder.exists():
                if os.geteuid() != 0:
                    raise PermissionError("only root can make it; with sudo, or once as root for this user's cache")
                print(f"making a Debian machine in {folder}", flush=True)
                _remove_old()
                with tempfile.TemporaryDirectory(dir=CACHE, prefix="making-") as temporary:
                    _make(Path(temporary))
                    (Path(temporary) / "disk").rename(folder)
            os.utime(folder)
            stack.enter_context(_locked(folder, fcntl.LOCK_SH))
        yield folder


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    """Hold a lock on a file or a folder. Raises BlockingIOError with LOCK_NB if others hold it."""
    descriptor = os.open(path, os.O_RDONLY | (0 if path.is_dir() else os.O_CREAT))
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _remove_old() -> None:
    """Remove what a process that was killed has left, and the disks that were not used for longest; but none in use."""
    for left in CACHE.glob("making-*"):
        shutil.rmtree(left)
    disks = sorted(CACHE.glob("vm-*"), key=lambda disk: disk.stat().st_mtime)
    for disk in disks[: max(0, len(disks) - KEPT + 1)]:
        with contextlib.suppress(BlockingIOError), _locked(disk, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(disk)


def _make(folder: Path) -> None:
    """Fill `folder`/disk."""
    root, disk, begun = folder / "root", folder / "disk", time.monotonic()
    disk.mkdir()
    debian.bootstrap(root)
    print(f"debootstrap took {time.monotonic() - begun:.0f} s", flush=True)
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
    for verb in ("enable tests", f"mask {MASKED}"):
        subprocess.run(debian.arguments(root, f"systemctl --quiet {verb}", "/"), check=True)
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy((root / name).resolve(), disk / name)
    make_disk(root, disk / "root.ext4", ROOT_SIZE)


def make_disk(source: Path, image: Path, size: str) -> None:
    """Make an ext4 file system of a folder's files."""
    command = ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", str(source), str(image), size]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
