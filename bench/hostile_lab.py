"""The server that hostile.py attacks, and those who use it honestly: a tunnel with a stream, a light session, joiners.

A Victim is one setup: "ws", "wss", "login" (passwords and tokens) or "proxy" (PROXY headers). It runs one checkout of
etherws by that checkout's own Python. The attackers are processes of their own: hostile_flood.py.
"""

from __future__ import annotations

import base64
import json
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.compare import checked
from bench.hostile_kinds import MANY
from bench.lab import OUTER_B, VETH, Lab
from bench.light_session import BRIDGE, Joiner, LightSession, join
from bench.peer import certificate
from bench.process import Process, wait_until
from bench.raw_client import PORT, address
from bench.tunnel import INNER_A, INNER_B
from etherws.access import passwd

ATTACKERS = str(Path(__file__).with_name("hostile_flood.py"))
#: The honest client's TAP on the server, which comes first.
HONEST = "ethws0"
#: The port of iperf3, and the seconds for which it runs if nobody stops it.
STREAM_PORT, FOREVER = 8082, 36_000
#: The numbers of the addresses of the light session and of the joiners; the attackers have those before.
LIGHT, JOINING = MANY, MANY + 1
#: bcrypt's cost, as `etherws passwd` takes it.
COST = 10


@dataclass
class Memory:
    """The server's memory in MB, when this was made. peak() is the largest since then."""

    server: Process
    now: float

    def peak(self) -> float:
        """Return the largest resident memory since this was made."""
        return max(self.now, self.server.peak_rss())


class Victim:
    """The server and its honest users, until the block ends."""

    def __init__(self, lab: Lab, setup: str, checkout: Path, stream: int | None = None) -> None:
        """`stream` is the most Mbit/s of the honest stream, None for all that passes."""
        self.lab, self.scheme = lab, "wss" if setup == "wss" else "ws"
        self._setup, self._python, self._rate = setup, str(checked(checkout)), stream

    def __enter__(self) -> Victim:
        lab = self.lab
        for number in range(MANY + 2):
            lab.a.ip("addr", "add", f"{address(number)}/24", "dev", VETH)
        # An attacker that connects thousands of times a second needs many ports.
        lab.a.run("sh", "-c", "echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range")
        self._serving, self._joining, self._lines = self._options()
        self._stack = ExitStack()
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def again(self) -> None:
        """Start everything anew, after a failure."""
        self._stack.close()
        self._start()

    def _options(self) -> tuple[list[str], list[str], list[bytes]]:
        """Return the options of the server and of the client, and the Authorization of the light session and of each
        joiner."""
        folder = self.lab.directory
        if self._setup == "wss":
            key, cert = map(str, certificate(self.lab))
            return ["--keyfile", key, "--certfile", cert], ["--cacert", cert], []
        if self._setup == "proxy":
            return ["--proxy-protocol", "--trusted-proxy", address(0)], [], []
        if self._setup != "login":
            return [], [], []
        password, secret = secrets.token_hex(8), folder / "secret"
        # Each has a name of its own: a second session of the same client would end the first.
        for name in ("honest", "joiner"):
            passwd.set_password(folder / "passwords", name, password, cost=COST)
        tokens = [passwd.add_token(folder / "tokens", name) for name in ("light", "tokens-joiner")]
        secret.write_text(password)
        credentials = base64.b64encode(f"joiner:{password}".encode())
        serving = ["--htpasswd", str(folder / "passwords"), "--token-file", str(folder / "tokens")]
        lines = [b"Authorization: Bearer " + token.encode() for token in tokens]
        lines.append(b"Authorization: Basic " + credentials)
        return serving, ["--user", "honest", "--password-file", str(secret)], lines

    def _start(self) -> None:
        lab, etherws = self.lab, [self._python, "-m", "etherws"]
        listen = ["--address", OUTER_B, "--port", str(PORT), "--bridge", "br0"]
        running = {"directory": lab.directory}
        serve = lab.b.running(*etherws, "server", "--foreground", *listen, *self._serving, **running)
        self.server = self._stack.enter_context(serve)
        wait_until(lambda: self.server.listens(PORT), "the server to listen")
        uri = f"{self.scheme}://{OUTER_B}:{PORT}/"
        connect = lab.a.running(*etherws, "client", "--foreground", "--uri", uri, *self._joining, **running)
        self.client = self._stack.enter_context(connect)
        wait_until(lambda: self.client.check() and "connected" in self.client.so_far(), "the client to connect")
        for namespace, device, own in ((lab.a, HONEST, INNER_A), (lab.b, "br0", INNER_B)):
            namespace.ip("addr", "add", f"{own}/24", "dev", device)
            namespace.ip("link", "set", device, "up")
        # It must not change when ports come and go: the light session sends its frames there.
        lab.b.ip("link", "set", "br0", "address", BRIDGE.hex(":"))
        wait_until(lambda: lab.a.pings(INNER_B), "an answer to a ping")
        self.light: LightSession = self._stack.enter_context(LightSession(lab, partial(self._session, LIGHT), "br0"))
        joiners = [Joiner(lab, partial(self._session, JOINING, credentials)) for credentials in (1, 2)]
        self._joiners: list[Joiner] = [self._stack.enter_context(joiner) for joiner in joiners]
        wait_until(self.light.works, "the light session")
        self._stream()

    def _session(self, number: int, credentials: int = 0) -> socket.socket:
        return join(address(number), self.scheme == "wss", *self._lines[credentials : credentials + 1])

    def _stream(self) -> None:
        iperf = ["iperf3", "--port", str(STREAM_PORT)]
        receiver = self._stack.enter_context(self.lab.b.running(*iperf, "--server", "--one-off"))
        wait_until(lambda: receiver.listens(STREAM_PORT), "iperf3 to listen")
        sender = [*iperf, "--client", INNER_B, "--time", str(FOREVER), "--congestion", "cubic"]
        sender += ["--bitrate", f"{self._rate}M"] if self._rate else []
        self.stream = self._stack.enter_context(self.lab.a.running(*sender))
        before = self.server.received(HONEST)[0]
        wait_until(lambda: self.stream.check() and self.server.received(HONEST)[0] > before + 1e6, "the stream")

    def devices(self) -> int:
        """Return how many TAPs of sessions the server has."""
        links = json.loads(self.lab.b.ip("-j", "link", "show"))
        return sum(link["ifname"].startswith("ethws") for link in links)

    def memory(self) -> Memory:
        """Return the server's memory now; the peak counts from here on (proc(5), clear_refs)."""
        Path(f"/proc/{self.server.pid}/clear_refs").write_text("5")
        return Memory(self.server, self.server.rss())

    def measured(self, seconds: float) -> dict[str, Any]:
        """Measure for that many seconds; return the stream's Mbit/s, and which frames were sent meanwhile."""
        lost, first = self._lost(), self.light.sent()
        begun, before = time.monotonic(), self.server.received(HONEST)[0]
        time.sleep(seconds)
        carried, took = self.server.received(HONEST)[0] - before, time.monotonic() - begun
        self.stream.check()
        frames = first, self.light.sent()
        return {"rate": carried * 8e-6 / took, "frames": frames, "lost": self._lost() - lost}

    def flows(self) -> bool:
        """Return whether the stream flows, at 100 Mbit/s or more; takes a fifth of a second."""
        return bool(self.measured(0.2)["rate"] > 100)

    def latency(self, measured: dict[str, Any]) -> dict[str, float | None]:
        """Return what the light session's frames took meanwhile."""
        return self.light.latency(*measured["frames"])

    def _lost(self) -> int:
        return self.light.lost + self.client.so_far().count("lost")

    @contextmanager
    def joining(self, on: bool) -> Iterator[list[float | None]]:
        """Let honest clients join until the block ends, if `on`; the list then has the seconds of each, or None."""
        found: list[float | None] = []
        joiners = self._joiners if self._setup == "login" else self._joiners[:1]
        for joiner in joiners:
            joiner.results, joiner.on = [], on
        yield found
        for joiner in joiners:
            joiner.on = False
            # One that is under way counts by what it has taken so far.
            found += joiner.finished() if on else []
