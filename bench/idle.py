"""What an idle client costs its server: memory and time of processor, by ws and by wss.

A server has so many clients on one bridge, which only answer its pings. Its memory is taken with a few clients and with
all of them, and once more after each has sent and received frames and was quiet again; the processor's time while all
are idle. Half of the clients (load.py) speak version 2 of the wire. Prints JSON. Read next: docs/performance.rst.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.cli import cannot_run, command, in_lab
from bench.crowd import ADDRESSES, Crowd, give_addresses
from bench.lab import OUTER_B, Lab
from bench.light_session import BRIDGE
from bench.peer import certificate
from bench.process import ROOT, Process, absent_programs, wait_until
from bench.raw_client import PORT, address

#: Clients at the first measurement. What the server needs for any client is there then.
FEW = 10
#: Seconds until the server is calm, and the part of a processor that it uses less of then.
CALM_TIMEOUT, CALM = 300.0, 0.1
#: Seconds from then on until the memory is taken: what a session keeps for a moment is given back in them.
SETTLE = 8.0
#: Seconds for which each client sends, and frames a second of each.
BUSY, RATE = 2.0, 20


def memory(process: Process) -> dict[str, float]:
    """What a process has, in kB, and the kernel's slab; how many mappings it has."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    slab = Path("/proc/meminfo").read_text().partition("Slab:")[2].split()[0]
    mappings = Path(f"/proc/{process.pid}/maps").read_text().count("\n")
    return {"pss": float(rollup.partition("Pss:")[2].split()[0]), "slab": float(slab), "mappings": mappings}


def load(process: Process, seconds: float) -> float:
    """The part of one processor that it uses in so many seconds."""
    used, begun = process.cpu(), time.monotonic()
    time.sleep(seconds)
    return (process.cpu() - used) / (time.monotonic() - begun)


def settled(process: Process) -> dict[str, float]:
    """The memory of a server once it is idle."""
    wait_until(lambda: load(process, 1.0) < CALM, "the server to be idle", CALM_TIMEOUT)
    time.sleep(SETTLE)
    return memory(process)


def measure_one(lab: Lab, options: argparse.Namespace, scheme: str) -> dict[str, Any]:
    """The figures of one scheme."""
    listen = ["--address", OUTER_B, "--port", str(PORT), "--bridge", "br0", "--log-level", "warning"]
    if scheme == "wss":
        key, cert = map(str, certificate(lab))
        listen += ["--keyfile", key, "--certfile", cert]
    joining = ["--kinds", f"{scheme}1,{scheme}2", "--addresses", str(ADDRESSES), "--first-address", address(0)]
    server = [sys.executable, "-m", "etherws", "server", "--foreground", *listen]
    with ExitStack() as stack:
        process = stack.enter_context(lab.b.running(*server, directory=Path(options.checkout).resolve()))
        wait_until(lambda: process.listens(PORT) and lab.b.has("br0"), "the server to listen")
        lab.b.ip("link", "set", "br0", "address", BRIDGE.hex(":"), "up")
        stack.enter_context(Crowd(lab.a, FEW, *joining))
        few = settled(process)
        more = options.clients - FEW
        # With a rate: a storm is measured elsewhere.
        crowd = stack.enter_context(Crowd(lab.a, more, *joining, "--first", str(FEW), "--rate", str(options.rate)))
        many = settled(process)
        busy = load(process, options.seconds)
        crowd.ask(f"busy {more} rate={RATE} to=bridge")
        crowd.ask("busy 1 rate=1 to=all")
        time.sleep(BUSY)
        crowd.ask("stop")
        quiet = settled(process)
        return {
            **{f"{name} per client": round((many[name] - few[name]) / more, 2) for name in few},
            **{f"{name} per client, after frames": round((quiet[name] - few[name]) / more, 2) for name in few},
            "percent of a core": round(100 * busy, 2),
        }


def measure(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    """All of it."""
    give_addresses(lab.a)
    return {scheme: measure_one(lab, options, scheme) for scheme in options.schemes.split(",")}


if __name__ == "__main__":
    if cannot_run(*absent_programs("ip", "openssl")):
        sys.exit(1)
    sys.exit(
        command(
            in_lab(measure),
            "Measure what an idle client costs its server: kB of memory, and processor time.",
            [
                ("--clients", 1000, "clients"),
                ("--rate", 100.0, "clients that connect in a second"),
                ("--seconds", 40.0, "seconds of idleness that are measured: twice the interval of pings"),
                ("--schemes", "ws,wss", "ways to connect"),
                ("--checkout", str(ROOT), "the checkout whose server is measured"),
            ],
        )
    )
