"""The programs that a benchmark runs: run() waits for the end, a Process runs in the background.

A Process also reads what its program uses: CPU, memory, and the counters of the interfaces in its network namespace.
It makes no namespaces; see Namespace in lab.py for that.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: The checkout, from where `python -m etherws` runs.
ROOT = Path(__file__).resolve().parent.parent
#: Seconds to wait for a tunnel to come up or for a program to listen. It takes one or two, on a busy machine more.
TIMEOUT = 20.0


class BenchError(Exception):
    """A measurement failed. The message names the program and quotes its output."""


def absent_programs(*programs: str) -> list[str]:
    """Return the programs that are not installed."""
    return [name for name in programs if not shutil.which(name)]


def run(*command: str, timeout: float = TIMEOUT, check: bool = True) -> str:
    """Run a command until it ends; return its standard output.

    Timeout in seconds. Raises BenchError when that is over and, with `check`, when the exit status is not 0.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, start_new_session=True)
    except subprocess.TimeoutExpired as exc:
        raise BenchError(f"{' '.join(command)}: did not end within {timeout:.0f} s") from exc
    if check and done.returncode != 0:
        raise BenchError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
    """Wait until the condition is true, for at most `timeout` seconds; then raise BenchError with `what`."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {timeout:.0f} s")
        time.sleep(0.02)


class Process:
    """A program in the background. Its output goes to a file."""

    def __init__(self, command: list[str], log: Path, directory: Path, **environ: str) -> None:
        self.name, self._log = " ".join(command[4:7]), log
        # Variables such as ETHERWS_CLIENT_MTU must not change what is measured. An installed etherws is compiled; to
        # compile this one at each start would take as long as all the rest of the start.
        env = {key: value for key, value in os.environ.items() if not key.startswith("ETHERWS_")}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        # Nothing is left in the machine's own folder.
        env["STATE_DIRECTORY"] = str(log.parent / "state")
        env.update(environ)
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                command,
                cwd=directory,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C goes to us only; we stop the program
            )
        self.pid = self._popen.pid

    def check(self) -> bool:
        """Return True while it runs; raise BenchError with its last lines of output when it has ended."""
        if self._popen.poll() is not None:
            tail = " | ".join(self.so_far().splitlines()[-3:])
            raise BenchError(f"{self.name}: ended with status {self._popen.returncode}: {tail}")
        return True

    def output(self, timeout: float) -> str:
        """Wait until it ends, and return its output. Timeout in seconds; raises BenchError after that."""
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired as exc:
            raise BenchError(f"{self.name}: did not end within {timeout:.0f} s") from exc
        return self.so_far()

    def status(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    def so_far(self) -> str:
        """Return its output so far."""
        return self._log.read_text(errors="replace")

    def notify(self, number: signal.Signals) -> None:
        """Send a signal to this process, but not to its children."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL, and wait until it ends."""
        self._popen.kill()
        self._popen.wait()

    def stop(self) -> None:
        """Send SIGTERM to it and to its children, after 5 s SIGKILL; wait until it ends."""
        self._signal(signal.SIGTERM)
        try:
            self._popen.wait(5)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._popen.wait()

    def _signal(self, number: signal.Signals) -> None:
        # It leads a process group, and its children stay in that group.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def listens(self, port: int) -> bool:
        """Return whether its namespace has a TCP socket that listens on the port, or a UDP socket bound to it."""
        self.check()
        for table, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
            for row in Path(f"/proc/{self.pid}/net/{table}").read_text().splitlines()[1:]:
                fields = row.split()
                if fields[1].endswith(f":{port:04X}") and fields[3] == state:
                    return True
        return False

    def received(self, device: str) -> tuple[int, int]:
        """Return the bytes and frames that an interface of its namespace has received.

        Of a TAP, this is what the program wrote to it. The counters are those of /sys/class/net/*/statistics, read
        through /proc/PID/net/dev: this file shows the namespace of the process, and no other process is needed to
        read it in the middle of a measurement.
        """
        fields = self._counters(device)
        return fields[0], fields[1]

    def sent(self, device: str) -> tuple[int, int]:
        """Return the bytes and frames that the interface has sent. Of a TAP, this is what the program read from it."""
        fields = self._counters(device)
        return fields[8], fields[9]

    def _counters(self, device: str) -> list[int]:
        for row in Path(f"/proc/{self.pid}/net/dev").read_text().splitlines():
            name, _, counters = row.partition(":")
            if name.strip() == device:
                return [int(field) for field in counters.split()]
        raise BenchError(f"there is no interface {device} any longer")

    def cpu(self) -> float:
        """Return the CPU seconds that it and its children have used, user and system, in all threads."""
        self.check()
        ticks = 0
        for pid in self._family():
            # The second field is the name in parentheses; it may contain spaces.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def rss(self) -> float:
        """Return its resident memory, without its children, in MB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def pss(self) -> float:
        """Return its resident memory in MB, where a page shared by n processes counts as 1/n (proc(5))."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return int(text.partition("Pss:")[2].split()[0]) * 1024 / 1e6

    def pss_of_all(self) -> float:
        """Return the same of it and its children together."""
        texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self._family()]
        return sum(int(text.partition("Pss:")[2].split()[0]) for text in texts) * 1024 / 1e6

    def peak_rss(self) -> float:
        """Return the largest resident memory that it or one of its children has had, in MB."""
        states = [Path(f"/proc/{pid}/status").read_text() for pid in self._family()]
        return max(int(state.partition("VmHWM:")[2].split()[0]) for state in states) * 1024 / 1e6

    def _family(self) -> list[int]:
        """Return its process number and those of its children: a server may fork a child for each client."""
        family = [self.pid]
        # The list grows while the loop runs.
        for pid in family:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with suppress(FileNotFoundError):
                    family += map(int, (thread / "children").read_text().split())
        return family
