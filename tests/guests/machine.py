"""A machine of tests/guests/ in QEMU, from its first boot to its end: whoever types has root's shell on a serial line,
sees what it prints, and may answer what a command asks. What is on its disk: image.py. It knows no command."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.guests.image import BEGINS, CABLE, OUT, READY

#: Seconds until the shell begins: ten times what it takes where the processor is emulated and nothing else runs. And
#: seconds for a command.
BOOT, COMMAND = 400.0, 400.0

#: What the kernel is told: see tests/vm/machine.py. A fifth level of page tables is more work for who emulates them.
KERNEL = (
    "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off no5lvl"
    " module_blacklist=kvm_amd,kvm_intel,powernow_k8,acpi_cpufreq,psmouse,pcspkr,floppy,cfg80211,ata_piix"
)

#: How much of the console and of the shell is told when something fails, in characters.
TOLD = 3000

_READY = re.compile(re.escape(READY).replace(r"\{\}", r"(\d+)"))
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Guest:
    """Machine 1 or 2, of the two that are joined by a cable in `folder`. With `checkout`, a disk, in its place."""

    def __init__(self, number: int, disk: Path, checkout: Path, folder: Path) -> None:
        self.number, self.console = number, folder / f"console{number}"
        self._unread = ""
        other = 3 - number
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / f"shell{number}"))
            listener.listen(1)
            command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-m", "2G"]
            command += ["-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "pc,hpet=off"]
            command += ["-device", "virtio-rng-pci"]
            command += ["-kernel", str(disk / "vmlinuz"), "-initrd", str(disk / "initrd.img"), "-append", KERNEL]
            # What it writes is there after a reboot, which is the same process, and gone with it.
            for path in (disk / "root.ext4", checkout):
                command += ["-drive", f"file={path},format=raw,if=virtio,snapshot=on"]
            ends = f"local.path={folder}/cable{number},remote.type=unix,remote.path={folder}/cable{other}"
            command += ["-netdev", f"dgram,id=cable,local.type=unix,{ends}", "-netdev", "user,id=out,ipv6=off"]
            for name, prefix in (("cable", CABLE), ("out", OUT)):
                command += ["-device", f"virtio-net-pci,netdev={name},mac={prefix}:0{number},romfile="]
            command += ["-serial", f"file:{self.console}", "-serial", f"unix:{folder}/shell{number}"]
            # It must not outlive this process.
            self._process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL)
            listener.settimeout(30)
            self._shell, _ = listener.accept()
        self._shell.settimeout(1)

    def close(self) -> None:
        """Switch it off."""
        self._process.kill()
        self._process.wait()
        self._shell.close()

    def boots(self) -> float:
        """Wait until the shell begins; return the seconds that it took."""
        begun = time.monotonic()
        self._reads(re.compile(re.escape(BEGINS)), BOOT)
        self._reads(_READY, BOOT)
        return time.monotonic() - begun

    def reboots(self) -> None:
        """Reboot it as root does, and wait until the shell is there again."""
        self.sends("systemctl reboot")
        self.boots()

    def types(self, command: str, answers: dict[str, str] | None = None) -> str:
        """Type a command and wait for its end; return what it prints. Each question is answered once."""
        output, status = self.tries(command, answers)
        assert status == 0, f"machine {self.number}: {command}\n{output}"
        return output

    def tries(self, command: str, answers: dict[str, str] | None = None) -> tuple[str, int]:
        """The same, of a command that may fail; return what it prints and its exit status."""
        self.sends(command)
        begun, asked, output = time.monotonic(), dict(answers or {}), ""
        while True:
            one_of = "|".join([_READY.pattern, *map(re.escape, asked)])
            text, found = self._reads(re.compile(one_of), COMMAND)
            output += text
            if found[1] is not None:
                # Shown if a test fails, or at once with ARGS=-s.
                took = f"{time.monotonic() - begun:.1f} s"
                print(f"machine {self.number}, {took}, status {found[1]}: {command}", flush=True)
                return output.strip(), int(found[1])
            self.sends(asked.pop(found[0]))

    def sends(self, line: str) -> None:
        """Type a line, and wait for nothing."""
        self._shell.sendall(f"{line}\n".encode())

    def _reads(self, pattern: re.Pattern[str], patience: float) -> tuple[str, re.Match[str]]:
        """Wait until the shell prints it; return what comes before it, and it."""
        deadline = time.monotonic() + patience
        while not (found := pattern.search(self._unread)):
            try:
                data = self._shell.recv(1 << 16)
            except TimeoutError:
                data = b""
                if self._process.poll() is None and time.monotonic() < deadline:
                    continue
            if not data or time.monotonic() > deadline:
                pytest.fail(self._story(f"no {pattern.pattern!r} from it within {patience:g} s"))
            self._unread = _ESCAPES.sub("", self._unread + data.decode(errors="replace"))
        text, self._unread = self._unread[: found.start()], self._unread[found.end() :]
        return text, found

    def _story(self, what: str) -> str:
        console = _ESCAPES.sub("", self.console.read_text(errors="replace"))
        parts = f"machine {self.number}: {what}", "the shell:", self._unread[-TOLD:], "the console:", console[-TOLD:]
        return "\n".join(parts)
