"""What it costs to look at a server with 1, 200 and 1,000 clients: ``python bench/observe.py``, as root.

The server, an `etherws server` that measures its own event loop (loop_turns.py), has a crowd of light sessions, and one
whose frames are timed (light_session.py). By turns nobody looks, and ten live pages are open, three of them slow, while
a scraper asks each second. Then all else that an operator does. Exit status 1: a figure is over its bound.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import cannot_run, duration, progress, up_to
from bench.compare import checked
from bench.counters import ask
from bench.crowd import ADDRESSES, Crowd, give_addresses
from bench.lab import OUTER_B, Lab
from bench.light_session import BRIDGE, LightSession, join
from bench.process import ROOT, BenchError, Process, absent_programs, run, wait_until
from bench.raw_client import PORT, address
from bench.report import machine
from bench.watchers import stream

TURNS, WATCHERS = (str(Path(__file__).with_name(name)) for name in ("loop_turns.py", "watchers.py"))

#: The bounds, in milliseconds: how much later frames come at the 99th percentile while others look, and a turn of the
#: event loop, in processor time.
LATER_MAX, TURN_MAX = 5.0, 2.0

#: Pages that are open at once, and clients that join and leave in a second.
PAGES, LEAVING = 10, 20

#: What the crowd does: each sends a frame a second, with a source of its own.
EACH_SENDS = "busy rate=1 size=60"

#: Seconds for the light session to join.
CROWD_TIMEOUT = 150.0

#: The page itself, with its files.
PAGE = [
    "/",
    *(f"/page/{file.name}" for file in sorted((ROOT / "etherws/observe/page").iterdir()) if file.suffix != ".html"),
]


class Server:
    """A server with its crowd, and a session whose frames are timed, until the block ends."""

    def __init__(self, lab: Lab, clients: int, *options: str, before: Path | None = None) -> None:
        """With `before`, the server is of this checkout, and only its memory can be asked for."""
        self.lab, self.clients, self._options, self._before = lab, clients, options, before
        self.control = lab.directory / "control"

    def __enter__(self) -> Server:
        lab, self._stack = self.lab, ExitStack()
        listen = ["--address", OUTER_B, "--port", str(PORT), "--bridge", "br0", "--log-level", "warning"]
        if self._before:
            command = [str(checked(self._before)), "-m", "etherws", "server", "--foreground", *listen]
        else:
            command = [sys.executable, TURNS, "etherws", "server", "--foreground", *listen]
            command += ["--control", str(self.control), *self._options]
        try:
            self.process: Process = self._stack.enter_context(lab.b.running(*command, directory=self._before or ROOT))
            wait_until(lambda: self.process.listens(PORT), "the server to listen")
            # It listens before it makes its bridge.
            wait_until(lambda: lab.b.has("br0"), "the bridge")
            lab.b.ip("link", "set", "br0", "address", BRIDGE.hex(":"), "up")
            self.before = self.process.rss()
            self.crowd = self._stack.enter_context(Crowd(lab.a, self.clients, "--addresses", str(ADDRESSES)))
            self.crowd.ask(EACH_SENDS)
            opened = partial(join, address(ADDRESSES), False)
            self.light: LightSession = self._stack.enter_context(LightSession(lab, opened, "br0"))
            wait_until(self.light.works, "the light session", CROWD_TIMEOUT)
            if not self._before:
                self.turns()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def turns(self) -> dict[str, Any]:
        """What loop_turns.py has measured since the last time."""
        known = self.process.so_far().count("\nturns ")
        self.process.notify(signal.SIGRTMIN)
        wait_until(lambda: self.process.check() and self.process.so_far().count("\nturns ") > known, "the turns")
        found = self.process.so_far().rpartition("\nturns ")[2]
        wait_until(lambda: self.process.so_far().endswith("\n"), "the turns")
        told: dict[str, Any] = json.loads(found.partition("\n")[0])
        return told

    @contextmanager
    def looking(self, path: str = "/stream") -> Iterator[Process]:
        """Have PAGES open, and scrape each second, in the block."""
        command = ["nice", sys.executable, WATCHERS, "looking", str(self.control), str(PAGES), path]
        with self.lab.b.running(*command) as process:
            wait_until(lambda: process.check() and "read" in process.so_far(), "an answer")
            yield process
            process.check()

    def order(self, path: str, values: dict[str, Any]) -> dict[str, Any]:
        """Give an order; its answer."""
        text = run(
            "curl", "-sS", "--unix-socket", str(self.control), f"http://localhost{path}", "-d", json.dumps(values)
        )
        found: dict[str, Any] = json.loads(text)
        return found


def timed(server: Server, what: str) -> tuple[float, int]:
    """The seconds and the bytes of one answer."""
    began = time.monotonic()
    if what == "etherws status --json":
        size = len(run(sys.executable, "-m", "etherws", "status", "--json", "--control", str(server.control)))
    elif what == "page":
        size = sum(len(ask(server.control, path)) for path in PAGE) + sum(map(len, _until_all_shown(server)))
    else:
        size = len(ask(server.control, what))
    return time.monotonic() - began, size


def _until_all_shown(server: Server) -> Iterator[bytes]:
    """What a page gets until it has each client."""
    shown, rest = 0, b""
    for data in stream(server.control, "/stream"):
        yield data
        # Of each row; an event has it, too, but there are none of clients here.
        shown += (rest + data).count(b'"identity":')
        rest = data[-len(b'"identity":') + 1 :]
        if shown > server.clients:
            return


def ticks(server: Server, seconds: float) -> list[tuple[float, int]]:
    """The seconds and the bytes of each whole tick of a page within this time."""
    found, begun, size, end = [], None, 0, time.monotonic() + seconds
    for data in stream(server.control, "/stream"):
        now = time.monotonic()
        if begun is None:
            begun, size = now, 0
        size += len(data)
        if b"event: tick" in data:
            found.append((now - begun, size))
            begun = None
        if now > end:
            break
    # The first one is with all that there is.
    return found[1:] or found


def answers(server: Server, asked: int) -> dict[str, list[tuple[float, int]]]:
    """The seconds and the bytes of each answer, by what was asked."""
    found = {
        what: [timed(server, what) for _ in range(asked)]
        for what in ("etherws status --json", "/status", "/metrics", "page")
    }
    return {**found, "a tick": ticks(server, 2.0 * asked)}


def latency(server: Server, rounds: int, seconds: float) -> dict[str, Any]:
    """What the frames took, in ms, and the turns, while nobody looks and while PAGES do and a scraper."""
    times: dict[str, list[float]] = {"nobody": [], "all": []}
    turns: dict[str, list[dict[str, Any]]] = {"nobody": [], "all": []}
    for number in range(rounds):
        for who in ("nobody", "all") if number % 2 else ("all", "nobody"):
            with ExitStack() as stack:
                server.turns()
                if who == "all":
                    stack.enter_context(server.looking())
                first = server.light.sent()
                time.sleep(seconds)
                times[who] += server.light.times(first, server.light.sent())
                turns[who].append(server.turns())
    return {"times": times, "turns": {who: merged(found) for who, found in turns.items()}}


def merged(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The turns of several times together."""
    whole: dict[str, Any] = {}
    for kind in ("loop", "greenlets", "collections"):
        longest = sorted((each for one in found for each in one[kind]["longest"]), reverse=True)
        whole[kind] = {"count": sum(one[kind]["count"] for one in found), "longest": longest[:12]}
    return whole


def all_else(server: Server, seconds: float) -> dict[str, dict[str, Any]]:
    """The turns while pages are open, during each of the other things that happen to a server."""
    found, lab = {}, server.lab
    with server.looking():
        server.turns()
        with lab.a.running(sys.executable, WATCHERS, "leaving", str(LEAVING)):
            time.sleep(seconds)
        found["joins and leaves"] = server.turns()
        for number in range(min(server.clients, 5)):
            server.order("/kick", {"client": f"ethws{number}"})
        found["kick"] = server.turns()
        with server.looking("/events?follow=1"):
            server.turns()
            server.process.notify(signal.SIGRTMAX)
            time.sleep(seconds)
            found["flood of events"] = server.turns()
        server.order("/drain", {"seconds": seconds})
        time.sleep(seconds + 1)
        found["drain"] = server.turns()
    return found


def measure(clients: int, options: argparse.Namespace) -> dict[str, Any]:
    """All figures with so many clients."""
    found: dict[str, Any] = {}
    with Lab() as lab:
        give_addresses(lab.a, ADDRESSES + 1)
        if options.before:
            with Server(lab, clients, before=options.before) as server:
                found["memory before"] = server.process.rss() - server.before
        with Server(lab, clients) as server:
            found["memory"] = server.process.rss() - server.before
            found["answers"] = answers(server, options.asked)
            found |= latency(server, options.rounds, options.seconds)
            found["memory looked at"] = server.process.rss() - server.before
            found["else"] = {} if options.no_else else all_else(server, options.seconds)
        with Server(lab, clients, "--monitor-clients") as server:
            found["answers"]["/metrics, of each client"] = [timed(server, "/metrics") for _ in range(options.asked)]
            server.turns()
            for _ in range(options.asked):
                ask(server.control, "/metrics")
            found["else"]["/metrics, of each client"] = server.turns()
    return found


def table(clients: int, found: dict[str, Any], where: bool) -> tuple[str, int]:
    """The figures as text, and how many are over their bounds."""
    lines, over = [f"{clients} clients"], 0

    def judged(text: str, value: float, bound: float) -> None:
        nonlocal over
        over += value > bound
        lines.append(f"  {text:70} {'over' if value > bound else 'pass'} (at most {bound:g} ms)")

    for what, times in found["answers"].items():
        if not times:
            lines.append(f"  {what:26} none came in the time")
            continue
        took = sorted(1e3 * seconds for seconds, _ in times)
        size = statistics.median(size for _, size in times) / 1e3
        lines.append(f"  {what:26} {statistics.median(took):9.1f} ms  worst {took[-1]:9.1f}  {size:9.1f} kB")
    quiet, busy = (statistics.quantiles(found["times"][who], n=100, method="inclusive") for who in ("nobody", "all"))
    text = "frames, ms, nobody looks / ten pages and a scraper: "
    lines.append(f"  {text}median {quiet[49]:.2f} / {busy[49]:.2f}, of {len(found['times']['all'])}")
    judged(f"the same, 99th percentile: {quiet[98]:.2f} / {busy[98]:.2f}", busy[98] - quiet[98], LATER_MAX)
    for name, turns in {
        "nobody looks": found["turns"]["nobody"],
        "pages": found["turns"]["all"],
        **found["else"],
    }.items():
        longest = turns["loop"]["longest"] or [[0.0, 0.0, ""]]
        slow = sum(each[0] > TURN_MAX for each in longest)
        busy_ms, clock_ms, _ = longest[0]
        text = f"{name}: longest of {turns['loop']['count']} turns: {busy_ms:.1f} ms ({clock_ms:.1f} by the clock)"
        if name == "nobody looks":
            lines.append(f"  {text}")
        else:
            judged(text, longest[0][0], TURN_MAX)
        if where or slow:
            lines += [f"      {each[0]:6.2f} {each[1]:6.2f} {each[2]}" for each in longest[: 12 if where else 3]]
        lines += [
            f"      garbage collection, {each[2]}: {each[0]:.2f} ms"
            for each in turns["collections"]["longest"][:1]
            if each[0] > TURN_MAX
        ]
    kinds = [kind for kind in ("memory before", "memory", "memory looked at") if kind in found]
    lines.append("  " + ", ".join(f"{kind}: {1e3 * found[kind] / clients:.1f} kB a client" for kind in kinds))
    return "\n".join(lines), over


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(prog="bench/observe.py", description="Measure what it costs to look. Needs root.")
    parser.add_argument(
        "--clients", type=up_to(1000), nargs="+", default=[1, 200, 1000], metavar="N", help="default: all"
    )
    parser.add_argument(
        "--rounds", type=up_to(100), default=3, metavar="N", help="pairs of watched and not; default: 3"
    )
    parser.add_argument("--seconds", type=duration, default=4.0, metavar="S", help="of each; default: 4")
    parser.add_argument("--asked", type=up_to(100), default=5, metavar="N", help="times for each answer; default: 5")
    parser.add_argument("--no-else", action="store_true", help="leave out joins, kick, drain and the flood of events")
    parser.add_argument("--before", type=Path, metavar="DIRECTORY", help="measure the memory of this checkout, too")
    parser.add_argument("--where", action="store_true", help="print where the longest turns were")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values there")
    options = parser.parse_args(argv)
    if cannot_run(*absent_programs("ip", "curl")):
        return 1
    begun, found, over = time.monotonic(), dict[int, dict[str, Any]](), 0
    try:
        for number, clients in enumerate(options.clients):
            progress(number, len(options.clients), f"{clients} clients, {time.monotonic() - begun:.0f} s so far")
            found[clients] = measure(clients, options)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    print(*(f"{key}: {value}" for key, value in machine().items() if key in ("cpu", "kernel", "load")), sep="\n")
    for clients, each in found.items():
        text, count = table(clients, each, options.where)
        over += count
        print(f"\n{text}")
    print(f"\nover their bounds: {over or 'none'}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
