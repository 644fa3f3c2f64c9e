"""What tests make on a bare Debian, kept in ~/.cache/etherws: one process makes it while others wait for it, nobody
removes what is in use, and what was not used for longest goes. What there is: the disks of virtual machines, of
tests/vm/image.py and tests/guests/image.py; the Debian package, of tests/vm/package.py."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.lab import debian

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "etherws"


@contextlib.contextmanager
def kept(sort: str, key: str, number: int, make: Callable[[Path], None]) -> Iterator[Path]:
    """The folder of this sort and key, which nobody removes until the block ends. If there is none, `make` fills the
    folder ``disk`` of a temporary folder, which it gets; of this sort, `number` are kept. Raises OSError and
    SubprocessError."""
    folder = CACHE / f"{sort}-{key}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _locked(CACHE / f"{sort}.lock", fcntl.LOCK_EX):
            if not folder.exists():
                if os.geteuid() != 0:
                    raise PermissionError("only root can make it; with sudo, or once as root for this user's cache")
                print(f"making {folder}", flush=True)
                _remove_old(sort, number)
                with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"making-{sort}-") as temporary:
                    (Path(temporary) / "disk").mkdir()
                    make(Path(temporary))
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


def _remove_old(sort: str, number: int) -> None:
    """Remove what a process that was killed has left, and what was not used for longest; but nothing in use."""
    for left in CACHE.glob(f"making-{sort}-*"):
        shutil.rmtree(left)
    folders = sorted(CACHE.glob(f"{sort}-*"), key=lambda folder: folder.stat().st_mtime)
    for folder in folders[: max(0, len(folders) - number + 1)]:
        with contextlib.suppress(BlockingIOError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(folder)


def install(root: Path, *commands: str, directory: str) -> None:
    """Run shell commands that install a kernel and what a machine needs, in the Debian of this folder. Raises
    SubprocessError."""
    # No more in the initrd than what reads the disk: without KVM, it takes long to unpack.
    (root / "etc/initramfs-tools/conf.d").mkdir(parents=True)
    (root / "etc/initramfs-tools/conf.d/etherws").write_text("MODULES=list\nCOMPRESS=gzip\nBUSYBOX=n\n")
    (root / "etc/initramfs-tools/modules").write_text("virtio_pci\nvirtio_blk\next4\n")
    # An init script must not find the services of this machine, whose /proc is there.
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    debian.install(root, *commands, directory=directory)
    policy.unlink()


def finish(root: Path, disk: Path, size: str, *verbs: str) -> None:
    """Tell systemd what to start in the Debian of this folder, by verbs of systemctl, and fill the folder `disk` with
    root.ext4, vmlinuz and initrd.img. Raises SubprocessError."""
    for verb in verbs:
        subprocess.run(debian.arguments(root, f"systemctl --quiet {verb}", "/"), check=True)
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy((root / name).resolve(), disk / name)
    make_disk(root, disk / "root.ext4", size)


def make_disk(source: Path, image: Path, size: str) -> None:
    """Make an ext4 file system of a folder's files."""
    command = ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", str(source), str(image), size]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
