"""Up to some thousand clients of one server, in one process: ``load.py CLIENTS [options]``.

The clients are bare (load_client.py): they speak version 1 or 2 of the wire, with or without TLS, from one or many
addresses. Each answers pings of the WebSocket, and ARP and IPv4 pings for its own address. This process prints a line
of JSON when all are up, and another for each command that it reads from its standard input:

    busy 50 [rate=0] [size=1514] [to=bridge|all|next|nowhere] [first=0]   from now on, 50 clients send
    stall 1000 [first=0]    they read nothing any more
    stop                    all are idle, and read
    mark                    begin to measure; report says what was carried since then
    report                  what the busy ones have sent, and all have received
    leave 100 [first=0]     they end, without a word
    join                    all who are not connected connect; the answer comes when nobody is on the way any more
    wait 1000               the same, when so many were lost since "mark" and came back by themselves (--again)

It ends with its standard input; if that is /dev/null, it lives until it is stopped. Where to read next: crowd.py, which
starts it and gives it commands; many.py.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.lab import OUTER_B
from bench.load_client import Client, Job, State
from bench.load_frames import FRAME_MAX, jain
from bench.raw_client import PORT, address

#: Versions and schemes that clients can have. Each kind is a scheme and a version.
KINDS = ("ws1", "ws2", "wss1", "wss2")
#: Seconds between two looks at who has to send, and until one who was refused or lost tries again.
TICK, AGAIN = 0.005, 1.0
#: Clients whose connecting begins at once, before others have their turn. The listening socket has room for some
#: thousand.
AT_ONCE = 100


class Load:
    """All clients, and the loop that carries their bytes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options, self._poll = options, select.epoll()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        kinds = [options.kinds.split(",")[number % (options.kinds.count(",") + 1)] for number in range(options.clients)]
        self.clients = [
            Client(
                options.first + number,
                int(kind[-1]),
                tls if kind.startswith("wss") else None,
                self._token(options.first + number),
            )
            for number, kind in enumerate(kinds)
        ]
        self._secure = {client.number: kind.startswith("wss") for client, kind in zip(self.clients, kinds, strict=True)}
        self._by_descriptor: dict[int, Client] = {}
        self._masks: dict[int, int] = {}
        self._refused: Counter[str] = Counter()
        # When each of these may begin to connect.
        self._due: list[tuple[float, Client]] = []
        self._begun, self._joining = 0.0, False
        self._marks: dict[int, tuple[int, int, int]] = {}
        self._marked, self._commands, self._rated = 0.0, b"", False
        self._busy: list[Client] = []
        # How many were lost since "mark", and how many have to be before "wait" is answered.
        self._ended = self._awaited = 0

    def run(self) -> None:
        """Connect all, and obey until the standard input ends."""
        self._join()
        with suppress(PermissionError):
            # This fails for /dev/null.
            self._poll.register(sys.stdin.fileno(), select.EPOLLIN)
            os.set_blocking(sys.stdin.fileno(), False)
        tick = 0.0
        while True:
            begin = self._begin_due()
            for descriptor, events in self._poll.poll(begin if not self._rated else min(begin, TICK)):
                if descriptor != sys.stdin.fileno():
                    client = self._by_descriptor[descriptor]
                    self._act(client, partial(client.ready, events))
                elif not self._obey():
                    return
            now = time.monotonic()
            if self._rated and now - tick >= TICK:
                tick = now
                for client in self._busy:
                    self._act(client, partial(client.tick, now))
            if self._joining and not self._due and self._ended >= self._awaited and self._settled():
                self._joining, self._awaited = False, 0
                self._say(self._joined(now))
                if self._options.then:
                    self._command(self._options.then)
                    self._options.then = ""

    def _token(self, number: int) -> str:
        return f"{self._options.resume}{number:022d}" if self._options.resume is not None else ""

    def _join(self) -> None:
        """Let all who are not connected connect: all at once, or at the rate."""
        self._begun, self._joining = time.monotonic(), True
        self._refused.clear()
        absent = [client for client in self.clients if client.state is State.ENDED]
        rate = self._options.rate
        self._due = [(self._begun + (at / rate if rate else 0.0), client) for at, client in enumerate(absent)]

    def _begin_due(self) -> float:
        """Begin the connections that are due; return the seconds until the next one, at most 1."""
        now, options = time.monotonic(), self._options
        ready = [client for due, client in self._due if due <= now][:AT_ONCE]
        if ready:
            self._due = [(due, client) for due, client in self._due if client not in set(ready)]
        for client in ready:
            port = options.tls_port if self._secure[client.number] else options.port
            source = self._source(client.number)
            sock = client.connect((options.server, port), source, options.buffer)
            self._by_descriptor[sock.fileno()] = client
            self._masks[sock.fileno()] = client.events()
            self._poll.register(sock.fileno(), client.events())
        return max(0.0, min(1.0, min((due for due, _ in self._due), default=now + 1) - now))

    def _source(self, number: int) -> str:
        options = self._options
        if not options.addresses:
            return ""
        at = number % options.addresses
        return str(ip_address(options.first_address) + at) if options.first_address else address(at)

    def _act(self, client: Client, act: Callable[[], object]) -> None:
        """Let the client do something, and wait for what it waits for then. If it ends, it may come again."""
        if client.state is State.ENDED:
            return
        try:
            act()
        except OSError as exc:
            if client.state is State.UP:
                self._ended += 1
            else:
                self._refused[str(client.status or type(exc).__name__)] += 1
            self._drop(client)
            if self._options.again:
                self._due.append((time.monotonic() + AGAIN, client))
            return
        descriptor = client.sock.fileno()
        if (wanted := client.events()) != self._masks[descriptor]:
            self._masks[descriptor] = wanted
            self._poll.modify(descriptor, wanted)

    def _settled(self) -> bool:
        """Whether nobody is on the way."""
        return all(client.state in (State.UP, State.ENDED) for client in self.clients)

    def _drop(self, client: Client) -> None:
        descriptor = client.sock.fileno()
        self._poll.unregister(descriptor)
        del self._by_descriptor[descriptor], self._masks[descriptor]
        client.close()

    def _joined(self, now: float) -> dict[str, Any]:
        up = sum(client.state is State.UP for client in self.clients)
        return {"seconds": now - self._begun, "up": up, "refused": dict(self._refused)}

    def _obey(self) -> bool:
        """Do what the standard input says; return whether it goes on."""
        data = sys.stdin.buffer.read()
        if not data:
            return data is None
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            self._command(line.decode())
        return True

    def _command(self, line: str) -> None:
        name, *words = line.split()
        facts = dict(word.split("=") for word in words if "=" in word)
        first = int(facts.pop("first", 0))
        chosen = self.clients[first : first + int(words[0])] if words and "=" not in words[0] else self.clients
        if (answer := self._do(name, chosen, facts)) is not None:
            self._say(answer)

    def _do(self, name: str, chosen: list[Client], facts: dict[str, str]) -> dict[str, Any] | None:
        match name:
            case "busy":
                size, rate, to = (
                    int(facts.get("size", FRAME_MAX)),
                    float(facts.get("rate", 0)),
                    facts.get("to", "bridge"),
                )
                for client in chosen:
                    client.work(Job(size, to, rate, time.monotonic()), len(self.clients))
                self._busy += [client for client in chosen if client not in self._busy]
                self._rated |= bool(rate)
            case "stall":
                for client in chosen:
                    client.stalled = True
            case "stop":
                for client in self.clients:
                    client.stalled = False
                    client.work(None, 0)
                self._busy, self._rated = [], False
            case "mark":
                self._marks = {client.number: (client.sent, client.received, client.frames) for client in self.clients}
                self._marked, self._ended = time.monotonic(), 0
            case "report":
                return self._report()
            case "leave":
                for client in chosen:
                    if client.state is not State.ENDED:
                        self._drop(client)
            case "join":
                self._join()
                return None
            case "wait":
                self._begun, self._joining, self._awaited = time.monotonic(), True, len(chosen)
                return None
            case _:
                return {"error": f"unknown command {name}"}
        self._wake()
        return {"done": name}

    def _wake(self) -> None:
        """Wait for what each client waits for now."""
        for descriptor, client in self._by_descriptor.items():
            self._masks[descriptor] = client.events()
            self._poll.modify(descriptor, client.events())

    def _report(self) -> dict[str, Any]:
        seconds = time.monotonic() - self._marked
        sent, received, frames = (
            [
                (value - before[at]) / seconds
                for client in self.clients
                if (before := self._marks.get(client.number, (0, 0, 0)))
                for value in [(client.sent, client.received, client.frames)[at]]
            ]
            for at in range(3)
        )
        chosen = [client.number - self._options.first for client in self._busy]
        return {
            "seconds": seconds,
            "up": sum(client.state is State.UP for client in self.clients),
            "ended": self._ended,
            "sent": sent,
            "received": received,
            "frames": frames,
            "jain sent": jain([sent[at] for at in chosen]),
            "jain received": jain([received[at] for at in chosen] or received),
            "cpu": time.process_time(),
        }

    def _say(self, answer: dict[str, Any]) -> None:
        print(json.dumps(answer), flush=True)


def parser() -> argparse.ArgumentParser:
    """Return what understands the command line."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("clients", type=int)
    found.add_argument("--server", default=OUTER_B, help="the server's address")
    found.add_argument("--port", type=int, default=PORT, help="its port for ws")
    found.add_argument("--tls-port", type=int, default=PORT, help="its port for wss")
    found.add_argument("--kinds", default="ws1", help=f"the clients have these in turn: {', '.join(KINDS)}")
    found.add_argument("--addresses", type=int, default=0, help="so many addresses in turn; 0: the machine's own")
    found.add_argument("--first-address", default="", help="the first of them; those after it follow")
    found.add_argument("--first", type=int, default=0, help="the number of the first client; others have others")
    found.add_argument("--rate", type=float, default=0.0, help="connections a second; 0: all at once")
    found.add_argument("--resume", nargs="?", const="", help="with a resume token for each, which begins with this")
    found.add_argument("--again", action="store_true", help="who was refused or lost comes again after a second")
    found.add_argument("--then", default="", help="a command for the moment when all are up")
    found.add_argument("--buffer", type=int, default=0, help="bytes of each receive buffer; 0: the kernel's default")
    return found


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    Load(parser().parse_args()).run()
