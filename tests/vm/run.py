"""A Debian machine for the tests that need one: ``make vm``.

What the kernel here or a container may lack (systemd as PID 1, VLANs, VRF, netem, bonds) is tested in a guest of QEMU,
on Debian's own kernel. The guest has its root on one disk, the checkout on another, and no network. What it writes to
them is gone with it. It runs pytest on the tests of mark ``vm``; what pytest prints is printed here, and its exit
status is ours. How the root is made: tests/vm/image.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.lab import debian
from tests.vm.image import CHECKOUT_SIZE, make_disk, root_disk

#: Seconds until pytest begins under KVM. Where a machine is itself a guest, KVM may start a guest that does nothing.
KVM_START = 40

#: Seconds for a run. QEMU alone, without KVM, takes some five times as long as the machine.
TIMEOUT = 2400

#: Seconds that a test waits for a thing, without KVM: five times those of tests/lab/hosts.py.
PATIENCE = 100


def boot(disk: Path, checkout: Path, log: Path, *, kvm: bool) -> int | None:
    """Run a machine to its end and print what its tests print. Returns their exit status, or None if there is none. Its
    console goes to `log`."""
    command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-nic", "none", "-m", "2G"]
    command += ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg,thread=multi", "-cpu", "max"]
    command += ["-smp", str(min(4, os.cpu_count() or 1)), "-device", "virtio-rng-pci"]
    # With the emulated HPET as its clock, a guest stood still for minutes on a machine that had little else to do.
    command += ["-machine", "pc,hpet=off", "-kernel", str(disk / "vmlinuz"), "-initrd", str(disk / "initrd.img")]
    command += ["-append", "root=/dev/vda rw console=ttyS0 panic=-1"]
    for path in (disk / "root.ext4", checkout):
        command += ["-drive", f"file={path},format=raw,if=virtio,snapshot=on"]
    command += ["-serial", f"file:{log}", "-serial", "stdio"]
    status = None
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as machine:
        late = threading.Timer(KVM_START if kvm else TIMEOUT, machine.kill)
        late.start()
        assert machine.stdout is not None
        for line in machine.stdout:
            if line.startswith("begin"):
                late.cancel()
                late = threading.Timer(TIMEOUT, machine.kill)
                late.start()
            elif found := re.match(r"exit status (\d+)", line):
                status = int(found[1])
            else:
                print(line, end="", flush=True)
        machine.wait()
        late.cancel()
    return status


def arguments() -> list[str]:
    """pytest's, beside those of our command line: only the files that have such a test are imported, which takes long
    without KVM."""
    files = (
        path for path in sorted((debian.CHECKOUT / "tests").rglob("test_*.py")) if "pytest.mark.vm" in path.read_text()
    )
    paths = " ".join(str(path.relative_to(debian.CHECKOUT)) for path in files)
    color = "yes" if sys.stdout.isatty() else "no"
    return ["-p", "no:cacheprovider", f"--color={color}", "-o", f"testpaths={paths}", *sys.argv[1:]]


def main() -> None:
    """Run the tests in a machine; the arguments are pytest's."""
    disk, log = root_disk(), debian.CHECKOUT / ".venv/vm.log"
    without_kvm = disk / "without-kvm"
    for kvm in (True, False):
        if kvm and (without_kvm.exists() or not os.access("/dev/kvm", os.W_OK)):
            continue
        how, start = "with KVM" if kvm else "without KVM", time.monotonic()
        with tempfile.TemporaryDirectory() as temporary:
            files, checkout = Path(temporary) / "files", Path(temporary) / "checkout.ext4"
            debian.copy_checkout(files, changes=True)
            (files / ".vm.args").write_text("\n".join(arguments()))
            (files / ".vm.env").write_text("" if kvm else f"PATIENCE={PATIENCE}\n")
            make_disk(files, checkout, CHECKOUT_SIZE)
            status = boot(disk, checkout, log, kvm=kvm)
        seconds = time.monotonic() - start
        if status is not None:
            print(f"the machine ran for {seconds:.0f} s {how}; its console: {log}")
            sys.exit(status)
        print(f"no result of the machine after {seconds:.0f} s {how}; its console: {log}", flush=True)
        if kvm:
            without_kvm.touch()
            print(f"the next ones run without KVM, until you remove {without_kvm}", flush=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
