"""A session while the server refuses logins: ``python bench/logins.py``, as root.

A TCP stream runs through the tunnel of an honest client before, during and after attackers try wrong passwords at a
steady rate: first all from one address, which the server soon slows down, then from so many addresses that the server
checks most of the passwords. Prints the stream's share of its undisturbed rate, the answers to the attackers, and how
long a login with the right password took at the same time.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cli import command, in_lab
from bench.lab import Lab
from bench.process import BenchError
from bench.raw_client import LINES, address, connected, request
from bench.tunnel import figures, role, stream, tunnel
from etherws.access import passwd

#: The number of the attackers' addresses, when they have many.
MANY = 150
#: The right password.
PASSWORD = "correct horse"


def attempt(source: str, password: str) -> str:
    """Try to log in from this address; return the HTTP status, or "none"."""
    credentials = base64.b64encode(f"bench:{password}".encode()).decode()
    with connected(source) as sock:
        sock.sendall(request([*LINES, f"Authorization: Basic {credentials}".encode()]))
        answer = sock.recv(4096).split(b" ", 2)
        return answer[1].decode() if len(answer) > 1 else "none"


def attackers(seconds: float, rate: int, addresses: int) -> dict[str, Any]:
    """Try `rate` wrong passwords per second, and every two seconds the right one; return the answers."""
    honest = []
    begun = time.monotonic()
    # One thread for each login without an answer; the server lets far fewer wait.
    with ThreadPoolExecutor(max_workers=64) as crowd:
        attempts = []
        for number in range(int(seconds * rate)):
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
            attempts.append(crowd.submit(attempt, address(number % addresses), "wrong"))
            if number % (2 * rate) == rate:
                # From another address, from which no wrong password came.
                honest.append(crowd.submit(log_in))
        answers = Counter(each.result() for each in attempts)
        took = time.monotonic() - begun
        return {
            "answers": answers,
            "a second": sum(answers.values()) / took,
            "right ones, s": [each.result() for each in honest],
        }


def log_in() -> float:
    """Try the right password until it is accepted; return the seconds."""
    begun = time.monotonic()
    while attempt(address(MANY), PASSWORD) != "101":
        time.sleep(0.1)
    return time.monotonic() - begun


def measure(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    """Measure with one address and with many; return the figures."""
    passwords, secret = lab.directory / "passwords", lab.directory / "secret"
    for name in ("bench", "honest"):
        passwd.set_password(passwords, name, PASSWORD, cost=options.cost)
    secret.write_text(PASSWORD)
    login = ["--user", "honest", "--password-file", str(secret)]
    with tunnel(lab, MANY + 1, ["--htpasswd", str(passwords)], login) as (server, client):
        found = {name: _under(lab, options, count) for name, count in (("one address", 1), ("many", MANY))}
        found["the tunnel was lost"] = {"times": client.so_far().count("lost")}
        if PASSWORD in server.so_far() + client.so_far():
            raise BenchError("a password is in the log")
        return found


def _under(lab: Lab, options: argparse.Namespace, addresses: int) -> dict[str, Any]:
    """Return the stream's rates without and with the attackers, by turns: a slow minute of the machine affects both."""
    calm, during, reports = [], [], []
    for _ in range(options.rounds):
        calm.append(stream(lab, options.seconds, 0))
        with lab.a.running(*role(__file__, "attackers", options.seconds, options.rate, addresses)) as crowd:
            during.append(stream(lab, options.seconds, 0))
            reports.append(figures(crowd, 3 * options.seconds + 60))
    calm.append(stream(lab, options.seconds, 0))
    kept = [two * 2 / (one + three) for one, two, three in zip(calm, during, calm[1:], strict=False)]
    return {"calm, Mbit/s": calm, "during, Mbit/s": during, "kept": kept, "attackers": reports}


def main() -> int:
    """Run the command line, or the attackers; return the exit status."""
    if sys.argv[1:2] == ["attackers"]:
        print(json.dumps(attackers(float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
        return 0
    return command(
        in_lab(measure),
        "A session while the server refuses logins.",
        [
            ("--rate", 50, "wrong passwords per second"),
            ("--seconds", 8.0, "duration of a measurement"),
            ("--rounds", 5, "repetitions"),
            ("--cost", 10, "cost of bcrypt"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
