"""Two network namespaces joined by a veth pair, and the programs that run in them.

    a (client, iperf3 -c)  10.98.0.1 --- veth --- 10.98.0.2  b (server, iperf3 -s)

The veth pair is as fast as the machine. Inside `with lab.slow():` and `with lab.lossy():` the same addresses are
reached over another path, by the interface `path0`. When a Lab ends, it stops its processes and removes its namespaces
with their interfaces. It does not touch the machine's own network.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from bench.process import ROOT, TIMEOUT, Process, run, wait_until

#: The underlay's addresses, in namespaces a and b.
OUTER_A, OUTER_B = "10.98.0.1", "10.98.0.2"
VETH = "veth0"
#: The emulator of a long path; it runs as a separate program.
EMULATOR = str(Path(__file__).with_name("path.py"))
#: The interface of a slow or long path, in both namespaces. It is also the name of path.py's TUNs.
DETOUR = "path0"
#: The congestion control of every TCP connection of the underlay, unless the program chooses another. Most machines
#: have cubic. With the setting of this machine, which may be bbr, the results would not be those of most users. It is
#: set by route, because a namespace accepts as its default only what the machine allows to ordinary users.
CONGESTION = "cubic"


class Namespace:
    """One named network namespace. The Lab makes and removes it."""

    def __init__(self, name: str, logs: Path) -> None:
        self.name, self._logs, self._count = name, logs, 0

    def file(self, name: str) -> Path:
        """Return the path for a file of this namespace; the file is removed with the Lab."""
        return self._logs / f"{self.name}-{name}"

    def command(self, *command: str) -> list[str]:
        """Return the command that runs this one here. `ip` is replaced by it, so the process number stays the same."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command: str, timeout: float = TIMEOUT, check: bool = True) -> str:
        """Run the command here until it ends; return its standard output. As run() in process.py."""
        return run(*self.command(*command), timeout=timeout, check=check)

    def ip(self, *arguments: str) -> str:
        """Run `ip` on the interfaces of this namespace."""
        return run("ip", "-n", self.name, *arguments)

    @contextmanager
    def running(self, *command: str, directory: Path = ROOT) -> Iterator[Process]:
        """Run the command in the background, started in the directory; stop it when the block ends."""
        process = self.spawn(*command, directory=directory)
        try:
            yield process
        finally:
            process.stop()

    def spawn(self, *command: str, directory: Path = ROOT) -> Process:
        """Start the command in the background, in the directory; the caller stops it."""
        self._count += 1
        return Process(self.command(*command), self._logs / f"{self.name}-{self._count}.log", directory)

    def has(self, device: str) -> bool:
        """Return whether there is an interface of this name."""
        links = json.loads(self.ip("-j", "link", "show") or "[]")
        return any(link["ifname"] == device for link in links)

    def pings(self, address: str) -> bool:
        """Return whether the address answers a ping within a second."""
        return ", 0% packet loss" in self.run("ping", "-n", "-q", "-c", "1", "-W", "1", address, check=False)


class Lab:
    """Two namespaces and the veth pair between them, a third namespace for a switch, a directory for logs and keys."""

    #: Decides which packets the lossy path loses: the same for all peers of a round, others in the next round.
    seed = 1

    def __enter__(self) -> Lab:
        # SIGTERM and SIGHUP raise KeyboardInterrupt like Ctrl-C, so that every finally runs. A signal that is ignored,
        # as SIGHUP under nohup, stays ignored.
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
                # The kernel's memory of one connection would change how the next begins, also that of another peer.
                namespace.run("sysctl", "--quiet", "--write", "net.ipv4.tcp_no_metrics_save=1")
            self.congestion(CONGESTION)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._close()

    def namespace(self, name: str) -> Namespace:
        """Make one more namespace; it is removed with the Lab."""
        made = Namespace(f"ewbench-{os.getpid()}-{name}", self.directory)
        self._namespaces.append(made)
        run("ip", "netns", "add", made.name)
        made.ip("link", "set", "lo", "up")
        return made

    @contextmanager
    def clean(self) -> Iterator[None]:
        """Use the veth pair as it is."""
        yield

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Use a path of 20 Mbit/s each way with a buffer of 30 ms, in a switch between the two namespaces.

        The limit is not at the ends of the veth pair, because there the sender's kernel would notice each drop of its
        own queue at once. The burst holds three full-size packets. tbf cuts a larger super-packet into its segments.
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
        """Use a path of 100 Mbit/s each way that has a buffer of 50 ms, a delay of 20 ms and a loss of 1 %."""
        with self.path("--delay", "20", "--loss", "1", "--rate", "100", "--buffer", "50"):
            yield

    @contextmanager
    def path(self, *line: str) -> Iterator[Process]:
        """Use a path with these options of path.py. Yield the emulator; SIGUSR1 begins its rates and bursts."""
        seed = ("--seed", str(self.seed))
        with self.a.running(sys.executable, EMULATOR, self.a.name, self.b.name, *line, *seed) as emulator:
            wait_until(lambda: emulator.check() and "ready" in emulator.so_far(), "path.py: its TUNs")
            self._take_detour()
            yield emulator
            emulator.check()

    def _take_detour(self) -> None:
        """Route the addresses of the veth pair over the interfaces DETOUR, until these are removed."""
        for namespace in (self.a, self.b):
            namespace.ip("link", "set", DETOUR, "txqueuelen", "1000", "up")
        self.congestion(CONGESTION)

    def congestion(self, name: str) -> None:
        """Use this congestion control for the TCP connections of the underlay that are made from now on."""
        for namespace, here, there in ((self.a, OUTER_A, OUTER_B), (self.b, OUTER_B, OUTER_A)):
            options = ("src", here, "congctl", name)
            namespace.ip("route", "replace", "10.98.0.0/24", "dev", VETH, *options)
            if namespace.has(DETOUR):
                namespace.ip("route", "replace", f"{there}/32", "dev", DETOUR, *options)

    def _close(self) -> None:
        """Stop and remove everything; a second Ctrl-C does not interrupt this."""
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)
        try:
            for namespace in self._namespaces:
                # A process is left if an interrupt came between its start and the try that stops it.
                for pid in run("ip", "netns", "pids", namespace.name, check=False).split():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                run("ip", "netns", "del", namespace.name, check=False)
            shutil.rmtree(self.directory, ignore_errors=True)
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
