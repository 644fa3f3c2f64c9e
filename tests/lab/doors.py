"""The doors of what is shown (etherws/observe/serve.py), of a server that is none; and HTTP to them, byte by byte."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket as std_socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gevent
from gevent import socket

from etherws.monitoring import Monitoring
from etherws.observe.events import Events
from etherws.observe.serve import Observation
from tests.lab.hosts import PATIENCE, Host
from tests.lab.subjects import FakeServer


class Reply(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's values."""
        return json.loads(self.body)


def parse(data: bytes) -> Reply:
    """The one answer in these bytes, which must be complete."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if headers.get("transfer-encoding") == "chunked" and body:
        chunks, rest = [], body
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            chunks.append(rest[: int(size, 16)])
            assert rest[int(size, 16) :][:2] == b"\r\n"
            rest = rest[int(size, 16) + 2 :]
        assert chunks[-1] == b""
        body = b"".join(chunks)
    elif "content-length" in headers and body:
        assert len(body) == int(headers["content-length"])
    return Reply(int(first.split()[1]), headers, body)


def request(what: str, body: bytes | None = None, **headers: str) -> bytes:
    """A request such as "GET /status"; underscores of names stand for hyphens."""
    lines = {"Host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if body is not None:
        lines.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"{what} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body or b"")


def ask(where: Path | std_socket.socket, what: str, body: bytes | None = None, **headers: str) -> Reply:
    """The answer at a control socket, or on a connection."""
    with std_socket.socket(std_socket.AF_UNIX) if isinstance(where, Path) else where as sock:
        if isinstance(where, Path):
            sock.settimeout(PATIENCE)
            sock.connect(str(where))
        sock.sendall(request(what, body, **headers))
        data = b""
        while more := sock.recv(65536):
            data += more
    return parse(data)


def monitor_of(host: Host, port: int) -> std_socket.socket:
    """A connection to --monitor."""
    sock = host.socket(std_socket.AF_INET, std_socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    sock.connect(("127.0.0.1", port))
    return sock


def login(host: Host, path: Path) -> tuple[int, str]:
    """The port of --monitor, and a cookie."""
    address = ask(path, "POST /page").json["address"]
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/login\?token=.*)", address)
    assert found
    reply = ask(monitor_of(host, int(found[1])), f"GET {found[2]}")
    return int(found[1]), reply.headers["set-cookie"].partition(";")[0]


class Doors:
    """An Observation that runs in this process, and connections to it."""

    def __init__(self, folder: Path, subject: FakeServer | None = None, **settings: Any) -> None:
        self.subject = subject or FakeServer()
        self.events = Events()
        self.log = logging.getLogger("etherws.test_doors")
        logging.getLogger("etherws").setLevel(logging.INFO)
        logging.getLogger("etherws").addHandler(self.events)
        given: dict[str, Any] = {"control": str(folder / "control"), "monitor": "0", **settings}
        found = Monitoring(**given)
        self.observation = Observation(self.subject, self.events, found, "server", "ethws0")
        self.observation.open()
        self.observation.start()

    @property
    def port(self) -> int:
        """Where --monitor listens."""
        return int(self.observation.address.rpartition(":")[2])

    def connect(self, *, monitor: bool = False, source: str = "") -> Any:
        """A connection to one of the doors; to --monitor from an address of this machine."""
        if monitor:
            sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE, (source, 0) if source else None)
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.observation.path)
        sock.settimeout(PATIENCE)
        return sock

    def say(self, data: bytes, *, monitor: bool = False) -> bytes:
        """All that is answered to these bytes, until the connection ends."""
        with self.connect(monitor=monitor) as sock:
            sock.sendall(data)
            return read_all(sock)

    def ask(self, what: str, body: bytes | None = None, *, monitor: bool = False, **headers: str) -> Reply:
        """The answer to a request; see request()."""
        return parse(self.say(request(what, body, **headers), monitor=monitor))

    def login(self) -> str:
        """The cookie of a new login at --monitor."""
        address = self.ask("POST /page").json["address"]
        path = "/login" + address.partition("/login")[2]
        return self.ask(f"GET {path}", monitor=True).headers["set-cookie"].partition(";")[0]

    def close(self) -> None:
        """End all."""
        logging.getLogger("etherws").removeHandler(self.events)
        self.observation.close()


def read_all(sock: Any) -> bytes:
    """What comes until the end, or the reset, of a connection."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := sock.recv(65536):
            data += more
    return data


def read_until(sock: Any, what: bytes) -> bytes:
    """What comes until these bytes have come."""
    data = b""
    with gevent.Timeout(PATIENCE):
        while what not in data:
            more = sock.recv(65536)
            assert more, data
            data += more
    return data


@contextlib.contextmanager
def doors(folder: Path, subject: FakeServer | None = None, **settings: Any) -> Iterator[Doors]:
    """Open doors for the block; the control socket's is in the folder."""
    with contextlib.closing(Doors(folder, subject, **settings)) as found:
        yield found
