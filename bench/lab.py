"""Two network namespaces joined by a veth pair, and the processes that run in them.

    a (client, iperf3 -c)  10.98.0.1 --- veth --- 10.98.0.2  b (server, iperf3 -s)

The link between the two is as fast as the machine. `with lab.slow():` and `with lab.lossy():` lead the same addresses
over another one, and its interface `path0`.

Whatever a Lab started or made ends with it: processes by their number, then the namespaces, which take the
interfaces along. Nothing of the machine's own network is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

#: The checkout, from where `python -m etherws` runs.
ROOT = Path(__file__).resolve().parent.parent
#: Seconds for a tunnel to come up, or a program to listen; it takes one or two, on a busy machine more.
PATIENCE = 20.0
#: The underlay's addresses, in namespaces a and b.
OUTER_A, OUTER_B = "10.98.0.1", "10.98.0.2"
VETH = "veth0"
#: The emulator of a long path, a program of its own.
EMULATOR = str(Path(__file__).with_name("path.py"))
#: The interface of a slow or a long path, in both namespaces; path.py calls its TUNs so.
DETOUR = "path0"
#: Every TCP connection of the underlay gets this congestion control unless the program chooses another: what most
#: machines have. Whatever is set for this machine, as bbr is on some, would hide how its users fare. It is set by
#: route, because the kernel gives a namespace as its default only what the machine allows to ordinary users.
CONGESTION = ("congctl", "cubic")


class BenchError(Exception):
    """A measurement failed; the message says which program and what it said."""


def absent_programs(*programs: str) -> list[str]:
    """Those of the programs that are not installed."""
    return [name for name in programs if not shutil.which(name)]


def run(*command: str, timeout: float = PATIENCE, check: bool = True) -> str:
    """Run a command to its end, and return its standard output. Timeout in seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, start_new_session=True)
    except subprocess.TimeoutExpired as exc:
        raise BenchError(f"{' '.join(command)}: no end after {timeout:.0f} s") from exc
    if check and done.returncode != 0:
        raise BenchError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait for the condition to hold, for so many seconds; BenchError names what never came."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {patience:.0f} s")
        time.sleep(0.02)


class Process:
    """A program in the background, its output kept in a file."""

    def __init__(self, command: list[str], log: Path, directory: Path) -> None:
        self.name, self._log = " ".join(command[4:7]), log
        # ETHERWS_CLIENT_MTU and the like of the caller must not change what is measured.
        env = {key: value for key, value in os.environ.items() if not key.startswith("ETHERWS_")}
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                command,
                cwd=directory,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for us; we end it
            )
        self.pid = self._popen.pid

    def check(self) -> bool:
        """True while it runs; BenchError with its last lines when it has ended."""
        if self._popen.poll() is not None:
            tail = " | ".join(self.so_far().splitlines()[-3:])
            raise BenchError(f"{self.name}: ended with status {self._popen.returncode}: {tail}")
        return True

    def output(self, timeout: float) -> str:
        """Wait for its end, and return what it printed. Timeout in seconds."""
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired as exc:
            raise BenchError(f"{self.name}: no end after {timeout:.0f} s") from exc
        return self.so_far()

    def so_far(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")

    def notify(self, number: signal.Signals) -> None:
        """Send a signal to it alone."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._popen.kill()
        self._popen.wait()

    def stop(self) -> None:
        """SIGTERM to it and to what it started, and SIGKILL after 5 s."""
        self._signal(signal.SIGTERM)
        try:
            self._popen.wait(5)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._popen.wait()

    def _signal(self, number: signal.Signals) -> None:
        # It leads a group, and what it starts stays in that.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def listens(self, port: int) -> bool:
        """Whether its namespace has a TCP socket listening on, or a UDP socket bound to, the port."""
        self.check()
        for table, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
            for row in Path(f"/proc/{self.pid}/net/{table}").read_text().splitlines()[1:]:
                fields = row.split()
                if fields[1].endswith(f":{port:04X}") and fields[3] == state:
                    return True
        return False

    def received(self, device: str) -> tuple[int, int]:
        """Bytes and frames that an interface of its namespace has received.

        The counters of /sys/class/net/*/statistics, but read through /proc/PID/net/dev: that shows the namespace
        of the process, and costs no process of its own in the middle of a measurement.
        """
        fields = self._counters(device)
        return fields[0], fields[1]

    def sent(self, device: str) -> tuple[int, int]:
        """As received(), what it has sent: of a TAP, what was read from it."""
        fields = self._counters(device)
        return fields[8], fields[9]

    def _counters(self, device: str) -> list[int]:
        for row in Path(f"/proc/{self.pid}/net/dev").read_text().splitlines():
            name, _, counters = row.partition(":")
            if name.strip() == device:
                return [int(field) for field in counters.split()]
        raise BenchError(f"{device} is gone")

    def cpu(self) -> float:
        """CPU seconds that it and its children have used, user and system, all threads."""
        self.check()
        ticks = 0
        for pid in self._family():
            # The second field, the name in parentheses, may hold spaces.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def rss(self) -> float:
        """The memory that it has resident, without its children, in MB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def pss(self) -> float:
        """As rss(), but memory that is shared with other processes counts in proportion (proc(5)), in MB."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return int(text.partition("Pss:")[2].split()[0]) * 1024 / 1e6

    def peak_rss(self) -> float:
        """The most memory it has had resident, or the largest of its children, in MB."""
        states = [Path(f"/proc/{pid}/status").read_text() for pid in self._family()]
        return max(int(state.partition("VmHWM:")[2].split()[0]) for state in states) * 1024 / 1e6

    def _family(self) -> list[int]:
        """Its number, and those of its children: a server may fork one for each client."""
        family = [self.pid]
        # The list grows as it is walked through.
        for pid in family:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with suppress(FileNotFoundError):
                    family += map(int, (thread / "children").read_text().split())
        return family


class Namespace:
    """One network namespace, by name; made and removed by the Lab."""

    def __init__(self, name: str, logs: Path) -> None:
        self.name, self._logs, self._count = name, logs, 0

    def file(self, name: str) -> Path:
        """Where a file of this namespace's own may be; it goes with the Lab."""
        return self._logs / f"{self.name}-{name}"

    def command(self, *command: str) -> list[str]:
        """The command as to be run from outside; `ip` becomes it, so its process number stays."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command: str, timeout: float = PATIENCE, check: bool = True) -> str:
        """Run to the end, and return the standard output. Timeout in seconds."""
        return run(*self.command(*command), timeout=timeout, check=check)

    def ip(self, *arguments: str) -> str:
        """`ip` on the interfaces of this namespace."""
        return run("ip", "-n", self.name, *arguments)

    @contextmanager
    def running(self, *command: str, directory: Path = ROOT) -> Iterator[Process]:
        """The command in the background, started in the directory; it is stopped when the block ends."""
        process = self.spawn(*command, directory=directory)
        try:
            yield process
        finally:
            process.stop()

    def spawn(self, *command: str, directory: Path = ROOT) -> Process:
        """The command in the background, started in the directory; the caller stops it."""
        self._count += 1
        return Process(self.command(*command), self._logs / f"{self.name}-{self._count}.log", directory)

    def has(self, device: str) -> bool:
        """Whether there is an interface of this name."""
        links = json.loads(self.ip("-j", "link", "show") or "[]")
        return any(link["ifname"] == device for link in links)

    def pings(self, address: str) -> bool:
        """Whether the address answers, within a second."""
        return ", 0% packet loss" in self.run("ping", "-n", "-q", "-c", "1", "-W", "1", address, check=False)


class Lab:
    """The two namespaces and the veth between them, a third for a path's middle, a directory for logs and keys."""

    #: Which packets of the lossy path are lost: the same for all peers of a round, and others in the next.
    seed = 1

    def __enter__(self) -> Lab:
        # SIGTERM and SIGHUP end it as Ctrl-C does, by way of every finally; not where they are ignored, as under nohup.
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        for number, handler in self._handlers.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)
        self.directory = Path(tempfile.mkdtemp(prefix="etherws-bench-"))
        self._namespaces: list[Namespace] = []
        try:
            self.a, self.b, self.middle = map(self.namespace, ("a", "b", "middle"))
            self.a.ip("link", "add", VETH, "type", "veth", "peer", "name", VETH, "netns", self.b.name)
            for namespace, address in ((self.a, OUTER_A), (self.b, OUTER_B)):
                namespace.ip("addr", "add", f"{address}/24", "dev", VETH)
                namespace.ip("link", "set", VETH, "up")
                namespace.ip("route", "change", "10.98.0.0/24", "dev", VETH, "src", address, *CONGESTION)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._close()

    def namespace(self, name: str) -> Namespace:
        """One more, which ends with the Lab."""
        made = Namespace(f"ewbench-{os.getpid()}-{name}", self.directory)
        self._namespaces.append(made)
        run("ip", "netns", "add", made.name)
        made.ip("link", "set", "lo", "up")
        return made

    @contextmanager
    def clean(self) -> Iterator[None]:
        """The veth pair as it is."""
        yield

    @contextmanager
    def slow(self) -> Iterator[None]:
        """20 Mbit/s each way, behind a buffer of 30 ms, in a switch between the two.

        Not at the ends of the veth pair: a sender's kernel knows of what its own queue drops, and of nothing else.
        The burst holds three full-size packets. tbf itself cuts a larger super-packet into its segments.
        """
        bottleneck = ("root", "tbf", "rate", "20mbit", "burst", "5kb", "latency", "30ms")
        try:
            self.middle.ip("link", "add", "switch", "up", "type", "bridge")
            for namespace, port in ((self.a, "to-a"), (self.b, "to-b")):
                namespace.ip("link", "add", DETOUR, "type", "veth", "peer", "name", port, "netns", self.middle.name)
                self.middle.ip("link", "set", port, "master", "switch", "up")
                run("tc", "-n", self.middle.name, "qdisc", "add", "dev", port, *bottleneck)
            self._take_detour()
            yield
        finally:
            for namespace in (self.a, self.b):
                run("ip", "-n", namespace.name, "link", "del", DETOUR, check=False)
            run("ip", "-n", self.middle.name, "link", "del", "switch", check=False)

    @contextmanager
    def lossy(self) -> Iterator[None]:
        """100 Mbit/s each way, behind a buffer of 50 ms, 20 ms long, and one packet in a hundred is lost."""
        line = ("--delay", "20", "--loss", "1", "--rate", "100", "--buffer", "50", "--seed", str(self.seed))
        with self.a.running(sys.executable, EMULATOR, self.a.name, self.b.name, *line) as emulator:
            wait_until(lambda: emulator.check() and "ready" in emulator.so_far(), "path.py: its TUNs")
            self._take_detour()
            yield
            emulator.check()

    def _take_detour(self) -> None:
        """Route the veth pair's addresses over the interfaces DETOUR, until these are gone."""
        for namespace, here, there in ((self.a, OUTER_A, OUTER_B), (self.b, OUTER_B, OUTER_A)):
            namespace.ip("link", "set", DETOUR, "txqueuelen", "1000", "up")
            namespace.ip("route", "add", f"{there}/32", "dev", DETOUR, "src", here, *CONGESTION)

    def _close(self) -> None:
        """Leave nothing behind; a second Ctrl-C does not stop that."""
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)
        try:
            for namespace in self._namespaces:
                # Those that a block interrupted between its start and its try had no time to stop.
                for pid in run("ip", "netns", "pids", namespace.name, check=False).split():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                run("ip", "netns", "del", namespace.name, check=False)
            shutil.rmtree(self.directory, ignore_errors=True)
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
