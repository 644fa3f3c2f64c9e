"""One boot of the machine in QEMU, to its end. What its script prints is printed here; a machine that hangs is ended,
with the reason and the last lines of its console. It knows nothing of tests: see run.py. The disk: image.py."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Seconds until the kernel's first line under KVM. Where a machine is itself a guest, KVM may start one that does
#: nothing at all. And seconds until the script begins: ten times what the boot takes, by KVM or without.
FIRST_LINE, BOOT_KVM, BOOT = 20.0, 60.0, 420.0

#: Seconds without a byte from the script. pytest prints where a test stands after 240: FAULT_TIMEOUT of run.py.
SILENCE = 420.0

#: The machine's processors, at most: a real one carries one that is emulated.
PROCESSORS = min(2, os.cpu_count() or 1)

#: How many lines of the console are told of a machine that was ended.
LAST_LINES = 25

#: Seconds to switch off, once the script has ended.
SWITCH_OFF = 30.0

#: What systemd and the kernel colour and move about.
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0e-\x1f]")


@dataclass
class Result:
    """What came of a boot."""

    #: The script's exit status; None if there is none, and then `failure` says why.
    status: int | None = None
    failure: str = ""
    #: Seconds until the script began, and from then on. 0 if it did not begin.
    boot: float = 0.0
    script: float = 0.0


def run(disk: Path, checkout: Path, console: Path, *, kvm: bool, limit: float, show: Callable[[str], None]) -> Result:
    """Boot a machine from the root's folder and the checkout's disk; its console goes to a file. The script may take
    `limit` seconds; `show` gets each line that it prints."""
    console.write_bytes(b"")
    begun, result = time.monotonic(), Result()
    # It must not outlive this process.
    command = ["setpriv", "--pdeathsig", "KILL", *_command(disk, checkout, console, kvm=kvm)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        try:
            boot = BOOT_KVM if kvm else BOOT
            for line in _lines(machine):
                now = time.monotonic() - begun
                if line == "begin":
                    result.boot = now
                elif line and (found := re.fullmatch(r"exit status (\d+)", line)):
                    result.status, result.script = int(found[1]), now - result.boot
                elif line is not None:
                    show(line)
                elif result.status is not None:
                    if now - result.boot - result.script > SWITCH_OFF:
                        break
                elif not result.boot and (now > boot or (kvm and now > FIRST_LINE and not console.stat().st_size)):
                    result.failure = f"it has not started within {now:.0f} s"
                elif result.boot and now - result.boot > limit:
                    result.failure = f"it was not done within {limit / 60:.0f} minutes"
                if result.failure:
                    break
            else:
                if result.status is None:
                    result.failure = "it ended too early"
        except TimeoutError:
            result.failure = f"nothing came from it for {SILENCE:.0f} s: it hangs"
        finally:
            machine.kill()
    if result.boot and result.status is None:
        result.script = time.monotonic() - begun - result.boot
    return result


def last_lines(console: Path) -> str:
    """The end of a console, as plain text."""
    text = _ESCAPES.sub("", console.read_text(encoding="utf-8", errors="replace"))
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(f"  | {line}" for line in lines[-LAST_LINES:]) or "  | (nothing)"


def _command(disk: Path, checkout: Path, console: Path, *, kvm: bool) -> list[str]:
    command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-nic", "none", "-m", "2G"]
    command += ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg,thread=multi", "-cpu", "max"]
    command += ["-smp", str(PROCESSORS), "-device", "virtio-rng-pci"]
    # With the emulated HPET as its clock, a guest stood still for minutes on a machine that had little else to do.
    command += ["-machine", "pc,hpet=off", "-kernel", str(disk / "vmlinuz"), "-initrd", str(disk / "initrd.img")]
    # Nobody attacks this machine: what guards against other programs' guesses costs much where it is emulated.
    # Nor is it a host of guests or a laptop, for which udev would load drivers that take long to find nothing.
    unused = "module_blacklist=kvm_amd,kvm_intel,powernow_k8,acpi_cpufreq,psmouse,pcspkr,floppy"
    command += ["-append", f"root=/dev/vda rw console=ttyS0 panic=-1 mitigations=off {unused}"]
    for path in (disk / "root.ext4", checkout):
        command += ["-drive", f"file={path},format=raw,if=virtio,snapshot=on"]
    return [*command, "-serial", f"file:{console}", "-serial", "stdio"]


def _lines(machine: subprocess.Popen[bytes]) -> Iterator[str | None]:
    """What the machine prints, line by line, and None each second, until it ends. Raises TimeoutError after SILENCE,
    which counts from the first line."""
    assert machine.stdout is not None
    left, last = b"", None
    with selectors.DefaultSelector() as selector:
        selector.register(machine.stdout, selectors.EVENT_READ)
        while True:
            if selector.select(1.0):
                data = os.read(machine.stdout.fileno(), 1 << 16)
                if not data:
                    break
                last = time.monotonic()
                *lines, left = (left + data).split(b"\n")
                yield from (line.decode(errors="replace").rstrip("\r") for line in lines)
            elif last is not None and time.monotonic() - last > SILENCE:
                if left:
                    print(left.decode(errors="replace"), flush=True)
                raise TimeoutError
            yield None
    if left:
        yield left.decode(errors="replace")


@contextlib.contextmanager
def console_kept(temporary: Path, log: Path) -> Iterator[Path]:
    """A file for a console, which is moved to `log` at the end: two runs of one checkout must not share a file."""
    console = temporary / "console"
    try:
        yield console
    finally:
        if console.exists():
            log.parent.mkdir(exist_ok=True)
            log.write_bytes(console.read_bytes())
            sys.stdout.flush()
