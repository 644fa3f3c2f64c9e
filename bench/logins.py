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

from bench.hostile import INNER_A, INNER_B, figures, role, stream
from bench.lab import OUTER_B, VETH, BenchError, Lab, Process, wait_until
from bench.strangers import LINES, PORT, address, connected_from, request
from etherws import passwd

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
    etherws = [sys.executable, "-m", "etherws"]
    for number in range(MANY + 1):
        lab.a.ip("addr", "add", f"{address(number)}/24", "dev", VETH)
    passwords = lab.directory / "passwords"
    passwd.set_password(passwords, "bench", PASSWORD, cost=options.cost)
    passwd.set_password(passwords, "honest", PASSWORD, cost=options.cost)
    secret = lab.directory / "secret"
    secret.write_text(PASSWORD)
    ends = ["--address", OUTER_B, "--port", str(PORT), "--bridge", "br0", "--htpasswd", str(passwords)]
    with lab.b.running(*etherws, "server", "--foreground", *ends) as server:
        wait_until(lambda: server.listens(PORT), "the server to listen")
        login = ["--user", "honest", "--password-file", str(secret)]
        with lab.a.running(*etherws, "client", "--foreground", f"ws://{OUTER_B}:{PORT}/", *login) as client:
            wait_until(lambda: client.check() and "connected" in client.so_far(), "the client to connect")
            for namespace, device, own in ((lab.a, "ethws0", INNER_A), (lab.b, "br0", INNER_B)):
                namespace.ip("addr", "add", f"{own}/24", "dev", device)
                namespace.ip("link", "set", device, "up")
            wait_until(lambda: lab.a.pings(INNER_B), "an answer to ping")
            found = {name: _under(lab, options, count) for name, count in (("one address", 1), ("many", MANY))}
            found["the tunnel was lost"] = {"times": client.so_far().count("lost")}
        _check(server)
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


def _check(server: Process) -> None:
    server.check()
    if PASSWORD in server.so_far():
        raise BenchError("a password is in the log")


def main() -> int:
    """Measure, or be the strangers; return the exit status."""
    if sys.argv[1:2] == ["strangers"]:
        print(json.dumps(strangers(float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
        return 0
    parser = argparse.ArgumentParser(prog="bench/logins.py", description="A session among refused logins. Needs root.")
    for option, default, text in (
        ("--rate", 50, "wrong passwords a second; 50 unless told"),
        ("--seconds", 8, "of one measurement; 8 unless told"),
        ("--rounds", 5, "5 unless told"),
        ("--cost", 10, "of bcrypt; 10 unless told"),
    ):
        parser.add_argument(option, type=int, default=default, metavar="N", help=text)
    options = parser.parse_args()
    try:
        with Lab() as lab:
            print(json.dumps(measure(lab, options), indent=2))
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
