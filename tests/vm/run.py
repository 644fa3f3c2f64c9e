"""A Debian machine for the tests that need one: ``make vm``.

What the kernel here or a container may lack (systemd as PID 1, VLANs, VRF, netem, bonds) is tested in a guest of QEMU,
on Debian's own kernel. The guest has its root on one disk, the checkout on another, and no network. What it writes to
them is gone with it. It runs pytest on the tests of the marks ``vm`` and ``vm_too``, or a script of bench/; what that
prints is printed here, and its exit status is ours. How it boots: machine.py. How its root is made: image.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.lab import debian, disks, typed
from tests.vm import machine
from tests.vm.image import CHECKOUT_SIZE, PYTHON, SCRIPT, root_disk
from tests.vm.package import FOLDER, copy_package

#: Minutes for the tests, and for a script of figures.
TESTS_LIMIT, FIGURES_LIMIT = 60, 240

#: Seconds that a test waits for a thing, without KVM: five times those of tests/lab/hosts.py.
PATIENCE = 100

#: Seconds after which pytest prints where a test stands, and goes on.
FAULT_TIMEOUT = 240

#: Seconds before the limit at which pytest is interrupted, as by Ctrl-C: it then shows what has failed so far.
INTERRUPT = 60

#: The tests that run there, and those of them that --no-long leaves out.
MARKS, LONG = ("vm", "vm_too"), "long_vm"


def script(options: argparse.Namespace, rest: list[str], *, kvm: bool) -> str:
    """What the machine runs."""
    environ = "" if kvm else f"export PATIENCE={PATIENCE}\n"
    if options.figures:
        return f"{environ}exec {PYTHON} {shlex.join(rest)}\n"
    # Only the files that have such a test are imported, which takes long without KVM.
    marks = tuple(f"pytest.mark.{mark}" for mark in MARKS)
    tests = sorted((debian.CHECKOUT / "tests").rglob("test_*.py"))
    files = [path for path in tests if any(mark in path.read_text() for mark in marks)]
    paths = " ".join(str(path.relative_to(debian.CHECKOUT)) for path in files)
    chosen = " or ".join(MARKS) if options.long else f"({' or '.join(MARKS)}) and not {LONG}"
    # Tests that act on the machine itself are of one group, and follow each other.
    command = ["-m", chosen, "-p", "no:cacheprovider", "-p", "tests.vm.nothing_skipped", "-o"]
    command += [f"testpaths={paths}", "-o", f"faulthandler_timeout={FAULT_TIMEOUT}"]
    command += ["--numprocesses", str(machine.PROCESSORS), "--dist", "loadgroup"]
    command += [f"--color={'yes' if sys.stdout.isatty() else 'no'}", "-v", *rest]
    bounded = f"timeout --signal=INT {max(60 * options.limit - INTERRUPT, 1)}"
    return f"{environ}exec {bounded} {PYTHON} -m pytest {shlex.join(command)}\n"


def show(line: str) -> None:
    """Print a line of the machine's, or keep it if it is a record of what its tests have typed."""
    mark, is_record, record = line.partition(typed.MARK)
    if is_record and not mark:
        typed.keep(json.loads(record))
    else:
        print(line, flush=True)


def wants_package(options: argparse.Namespace, rest: list[str]) -> bool:
    """Whether tests of the .deb run, too: building it takes minutes."""
    chosen = any(word.startswith("-k") or word.startswith("tests/") for word in rest)
    return not options.figures and options.long and (not chosen or any("deb" in word for word in rest))


def attempt(disk: Path, options: argparse.Namespace, rest: list[str], log: Path, *, kvm: bool) -> machine.Result:
    """One boot with the checkout as it is now; says what came of it."""
    how = "with KVM" if kvm else "without KVM"
    with tempfile.TemporaryDirectory(prefix="etherws-vm-") as temporary:
        files, checkout = Path(temporary) / "files", Path(temporary) / "checkout.ext4"
        debian.copy_checkout(files, changes=True)
        (files / SCRIPT).write_text(script(options, rest, kvm=kvm))
        if wants_package(options, rest):
            copy_package(files / FOLDER)
        disks.make_disk(files, checkout, CHECKOUT_SIZE)
        print(f"booting a machine {how}", flush=True)
        with machine.console_kept(Path(temporary), log) as console:
            result = machine.run(disk, checkout, console, kvm=kvm, limit=60 * options.limit, show=show)
            if result.failure:
                print(f"the machine was ended: {result.failure}. The end of its console:", flush=True)
                print(machine.last_lines(console), flush=True)
    return result


def main() -> None:
    """Run the tests in a machine; arguments that are not ours are pytest's."""
    # So that Ctrl-C's way is taken, which ends the machine and removes temporary files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    parser = argparse.ArgumentParser(prog="tests.vm.run", description=__doc__, allow_abbrev=False)
    parser.add_argument("--figures", action="store_true", help="run a script, such as bench/soak.py, with its options")
    parser.add_argument("--no-long", dest="long", action="store_false", help="leave out what takes half an hour more")
    parser.add_argument("--limit", type=int, metavar="MINUTES", help="for the tests or the script")
    options, rest = parser.parse_known_args()
    options.limit = options.limit or (FIGURES_LIMIT if options.figures else TESTS_LIMIT)
    if options.figures and not rest:
        parser.error("--figures needs a script, such as: --figures bench/soak.py --minutes 30")
    log, begun = debian.CHECKOUT / ".venv/vm.log", time.monotonic()
    try:
        with root_disk() as disk:
            sys.exit(tried(disk, options, rest, log, time.monotonic() - begun))
    except (OSError, subprocess.SubprocessError) as exc:
        sys.exit(
            f"cannot make the machine's disk: {exc}\n"
            "It needs root, a Debian mirror for debootstrap and apt, a Python package index, and 3 GB in ~/.cache."
        )


def tried(disk: Path, options: argparse.Namespace, rest: list[str], log: Path, image: float) -> int:
    """Boot by KVM where that works, else without; once more if it did not start. Returns the exit status."""
    without_kvm = disk / "without-kvm"
    ways = [False, False] if without_kvm.exists() or not os.access("/dev/kvm", os.W_OK) else [True, False, False]
    for kvm in ways:
        result = attempt(disk, options, rest, log, kvm=kvm)
        if result.boot:
            break
        if kvm:
            without_kvm.touch()
            print(f"the next ones run without KVM, until you remove {without_kvm}", flush=True)
    what = "figures" if options.figures else "tests"
    times = f"image {image:.0f} s, boot {result.boot:.0f} s, {what} {result.script:.0f} s"
    print(f"{times}; the machine's console: {log}", flush=True)
    return 1 if result.status is None else result.status


if __name__ == "__main__":
    main()
