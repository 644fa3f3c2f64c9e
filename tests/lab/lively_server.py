"""A server to observe whose clients are worth a look: slow, silent and hostile ones among many; and a client's link.

``python -m tests.lab.lively_server --sessions 200`` serves its page on the loopback, without a login.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gevent import pywsgi

from etherws.counters import Values
from etherws.errors import NoSuchClient
from etherws.observe.page import asset
from etherws.observe.stream import LivePage
from tests.lab.subjects import FakeServer

#: Identities that a page must show as text: markup, control characters, a line's end, right-to-left, and 10 kB.
HOSTILE = (
    "<img src=x onerror=alert(1)><script>alert(2)</script>",
    "\x1b[31mred\x1b[0m\r\nSet-Cookie: a=b",
    "abc\u202egnp.exe\u2066",
    "x" * 10_000,
    "'\"></svg><style>*{display:none}</style>&amp;",
)

NAMES = (
    "branch-lyon",
    "branch-oslo",
    "warehouse",
    "lab-2",
    "office-bern",
    "hub-west",
    "kiosk",
    "tower-b",
    "depot",
    "till",
)


#: Bytes that come sooner or later than evenly, and the period of that, in seconds: so the rates go up and down.
WAVES = ((60_000, 9.0), (400_000, 47.0), (900_000, 130.0))


class LivelyServer(FakeServer):
    """Some of its clients are slow, each for another reason; its histograms and drops go on."""

    def __init__(self, sessions: int = 3, parked: int = 1, *, hostile: bool = False) -> None:
        super().__init__(sessions, parked)
        self._hostile = hostile
        # So that there is a past from the start.
        self.began -= 3 * 86400

    def _carried(self, number: int) -> int:
        age = time.time() - self.began
        return int(super()._carried(number) * 2 + sum(size * math.sin(age / period) for size, period in WAVES))

    def overview(self) -> Values:
        values = super().overview()
        age = time.time() - self.began
        totals = values["totals"]
        for name, typical in (("round_trip", 4), ("queue_delay", 1)):
            counts = totals[name]["counts"]
            for at in range(4):
                slow = 30 * math.sin(age / 90 + at)
                counts[typical + at] += int(age * (8, 5, 2, 0.4)[at] * 2 + slow * (at + 1))
        totals["drops"]["queue late"] += 7 * int(age / 40 + math.sin(age / 50))
        warnings = list(HOSTILE) if self._hostile else []
        return values | {"name": "lan", "warnings": warnings, "refusals": {"wrong password": 12, "no port is free": 2}}

    def session(self, number: int) -> Values:
        values = super().session(number)
        wave = 1 + 0.3 * math.sin(time.time() / 7 + number)
        values["identity"] = f"{NAMES[number % len(NAMES)]}{f'-{number // len(NAMES)}' if number >= len(NAMES) else ''}"
        values["round_trip"] = (0.008 + 0.004 * (number % 9)) * wave
        values["rates"] = {name: rate * wave * (1 + 40 * (number % 11 == 3)) for name, rate in values["rates"].items()}
        values["queue"]["delay"] *= 0.6 * wave
        values["macs"] = [f"02:00:{at:02x}:00:{number // 256:02x}:{number % 256:02x}" for at in range(1 + number % 4)]
        values["since"] = time.time() - 4000 * (number % 30 + 1)
        if number % 40 == 1:
            values["queue"].update(delay=0.14 * wave, packets=212, bytes=310_000)
        if number % 90 == 2:
            values["round_trip"] = 0.61
        if number % 300 == 5:
            values["heard"] = 27.0
        if self._hostile and number < len(HOSTILE):
            values["identity"] = HOSTILE[number]
        return values

    def history(self, index: int) -> Values:
        values, now = super().history(index), time.time()
        shape = [
            1 + 0.4 * math.sin((now - 5 * at) / 47) + 0.2 * math.sin((now - 5 * at) / 11) for at in range(120, 0, -1)
        ]
        here = self.session(index - 10)
        for name in ("sent", "received"):
            values[name] = [here["rates"][name] * each for each in shape]
        values["round_trip"] = [here["round_trip"] * (0.6 + 0.4 * each) for each in shape]
        values["queue_delay"] = [here["queue"]["delay"] * each**3 for each in shape]
        return values

    def parked(self) -> Iterator[Values]:
        for values in super().parked():
            yield values | {"identity": "branch-kiel"}


class LinkedClient(LivelyServer):
    """A client with its one link; connected or not."""

    role = "client"

    def __init__(self, *, connected: bool = True) -> None:
        super().__init__(1, 0)
        self.connected = connected

    def overview(self) -> Values:
        values = super().overview()
        for name in ("listen", "refusals", "workers"):
            del values[name]
        link = {
            "server": "wss://gate.example.org/",
            "proxy": "http://proxy.example.net:3128",
            "attempts": 0,
            "reconnects": 2,
        }
        link |= {"last_error": None, "last_error_at": None, "next_attempt": None}
        if not self.connected:
            link |= {
                "last_error": "cannot connect to 203.0.113.9: Connection refused",
                "next_attempt": 12.0,
                "attempts": 4,
            }
        return values | {"state": "connected" if self.connected else "waiting", "link": link}

    def sessions(self) -> Iterator[Values]:
        if self.connected:
            yield self.session(0) | {"identity": None, "server": "gate.example.org", "address": "203.0.113.9"}


class SomeEvents:
    """An event each two seconds."""

    KINDS = (
        ("join", "info", "203.0.113.4 as 'branch-oslo' joined ethws1 by version 2 of the wire"),
        ("leave", "info", "203.0.113.7 as 'kiosk' left ethws6 after 2 h: the connection was closed (code 1001)"),
        ("refused", "warning", "203.0.113.77 was refused: wrong password for 'till' (refusal 3f2a91c4)"),
        ("reload", "info", "the policy was read again"),
        ("loop", "error", "ethws3 is part of a loop: a frame of ours came back by br0; ethws3 is down for 30 s"),
    )

    def __init__(self) -> None:
        self._first = int(time.time()) * 1000
        self._began = time.time() - 60

    def since(self, number: int) -> tuple[list[Values], int]:
        """As observe/events.py: Events.since."""
        count = int((time.time() - self._began) / 2)
        first = number - self._first if 0 <= number - self._first <= count else 0
        found = []
        for at in range(first, count):
            kind, level, text = self.KINDS[(at * 7 + at // 5) % len(self.KINDS)]
            who = {"identity": "branch-oslo", "device": "ethws1"} if kind == "join" else {}
            found.append(
                {
                    **who,
                    "number": self._first + at,
                    "time": self._began + 2 * at,
                    "level": level,
                    "kind": kind,
                    "text": text,
                }
            )
        return found, self._first + count


class Site:
    """The page's requests, as observe/application.py answers them, without logins; `refuse` stands for an old login."""

    def __init__(self, subject: FakeServer, *, refuse: bool = False) -> None:
        self.subject, self.refuse = subject, refuse
        self.live = LivePage(subject, SomeEvents())
        self.live.start()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        """Answer."""
        path, kind = environ["PATH_INFO"], "application/json"
        if self.refuse:
            kind, content, headers = asset("login") or ("", b"", [])
            start_response("401 Unauthorized", [("Content-Type", kind), *headers])
            return [content]
        if environ["REQUEST_METHOD"] == "POST":
            values = json.loads(environ["wsgi.input"].read())
            status: str = "200 OK"
            answer: Values = {}
            try:
                if path == "/kick":
                    answer = {"ended": self.subject.kick(values["client"], values["seconds"], "the page")}
                else:
                    self.subject.drain(values["seconds"], "the page")
            except NoSuchClient as exc:
                status, answer = "404 Not Found", {"error": str(exc)}
            start_response(status, [("Content-Type", kind)])
            return [json.dumps(answer).encode()]
        if path == "/stream":
            start_response("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")])
            return self.live.stream(environ.get("HTTP_LAST_EVENT_ID", ""))
        if path == "/history":
            index = environ.get("QUERY_STRING", "").partition("index=")[2]
            start_response("200 OK", [("Content-Type", kind)])
            return [json.dumps(self.live.history(int(index) if index else None)).encode()]
        found = asset(path)
        if found is None:
            start_response("404 Not Found", [])
            return [b""]
        kind, content, headers = found
        start_response("200 OK", [("Content-Type", kind), *headers])
        return [content]


def filled(live: LivePage, subject: FakeServer) -> None:
    """Give the history ten minutes, made up from the subject's totals at other times."""
    now = time.time()
    for step in range(121, 0, -1):
        with_past = now - 5 * step
        began = subject.began
        subject.began += 5 * step
        live._history.add(with_past, subject.overview()["totals"])
        subject.began = began


def main() -> None:
    """Serve the page until somebody ends it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--sessions", type=int, default=3)
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--past", action="store_true")
    parser.add_argument("--client", choices=("connected", "waiting"))
    parser.add_argument("--refuse", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    subject: FakeServer = LivelyServer(options.sessions, hostile=options.hostile)
    if options.client:
        subject = LinkedClient(connected=options.client == "connected")
    site = Site(subject, refuse=options.refuse)
    if options.past:
        filled(site.live, subject)
    server = pywsgi.WSGIServer(("127.0.0.1", options.port), site, log=None)
    server.start()
    print(f"http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
