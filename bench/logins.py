"""A session while logins are refused: ``python bench/logins.py``, as root.

A TCP stream through the tunnel of an honest client, before, while and after strangers try wrong passwords at a steady
rate: all from one address, which is soon slowed down, then from so many that most are looked at. Says what the stream
kept of its rate, what the strangers were answered, and how long a right password took meanwhile.
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
from bench.lab import BenchError, Lab
from bench.strangers import LINES, address, connected_from, request
from bench.tunnel import figures, role, stream, tunnel
from etherws.access import passwd

#: Addresses that the strangers have, when they have many.
MANY = 150
#: What the honest ones log in by.
PASSWORD = "correct horse"


def attempt(whence: str, password: str) -> str:
    """Log in from this address; return the status."""
    credentials = base64.b64encode(f"bench:{password}".encode()).decode()
    with connected_from(whence) as sock:
        sock.sendall(request([*LINES, f"Authorization: Basic {credentials}".encode()]))
        answer = sock.recv(4096).split(b" ", 2)
        return answer[1].decode() if len(answer) > 1 else "none"


def strangers(seconds: float, rate: int, addresses: int) -> dict[str, Any]:
    """Try `rate` wrong passwords a second, and now and then the right one; what was answered."""
    honest = []
    begun = time.monotonic()
    # As many at once as are not answered yet; far more than the server lets wait.
    with ThreadPoolExecutor(max_workers=64) as crowd:
        attempts = []
        for number in range(int(seconds * rate)):
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
            attempts.append(crowd.submit(attempt, address(number % addresses), "wrong"))
            if number % (2 * rate) == rate:
                # From an address of its own, which has done nothing wrong.
                honest.append(crowd.submit(log_in))
        answers = Counter(each.result() for each in attempts)
        took = time.monotonic() - begun
        return {
            "answers": answers,
            "a second": sum(answers.values()) / took,
            "right ones, s": [each.result() for each in honest],
        }


def log_in() -> float:
    """Log in by the right password, as often as it takes; return the seconds."""
    begun = time.monotonic()
    while attempt(address(MANY), PASSWORD) != "101":
        time.sleep(0.1)
    return time.monotonic() - begun


def measure(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    """All of it."""
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
    """The stream's rate without and with the strangers, by turns, so that a slow minute falls on both alike."""
    calm, meanwhile, reports = [], [], []
    for _ in range(options.rounds):
        calm.append(stream(lab, options.seconds, 0))
        with lab.a.running(*role(__file__, "strangers", options.seconds, options.rate, addresses)) as crowd:
            meanwhile.append(stream(lab, options.seconds, 0))
            reports.append(figures(crowd, 3 * options.seconds + 60))
    calm.append(stream(lab, options.seconds, 0))
    kept = [two * 2 / (one + three) for one, two, three in zip(calm, meanwhile, calm[1:], strict=False)]
    return {"calm, Mbit/s": calm, "meanwhile, Mbit/s": meanwhile, "kept": kept, "strangers": reports}


def main() -> int:
    """Measure, or be the strangers; return the exit status."""
    if sys.argv[1:2] == ["strangers"]:
        print(json.dumps(strangers(float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
        return 0
    return command(
        in_lab(measure),
        "A session among refused logins.",
        [
            ("--rate", 50, "wrong passwords a second"),
            ("--seconds", 8, "of one measurement"),
            ("--rounds", 5, "how often"),
            ("--cost", 10, "of bcrypt"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
