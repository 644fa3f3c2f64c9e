"""A server that floods its client: for hostile.py --client, which measures how long SIGTERM takes to end the client.

``hostile_server.py KIND SCHEME KEY CERTIFICATE`` is the server: it accepts each connection, answers 101, and floods. A
client is alone with its server, so nobody else's latency counts; but it must end within two seconds.
"""

from __future__ import annotations

import base64
import hashlib
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import tls_records
from bench.compare import checked
from bench.lab import OUTER_B, Lab
from bench.peer import certificate
from bench.process import BenchError, wait_until
from bench.raw_client import PORT
from bench.tls_records import DATA, KEY_UPDATE_REQUESTED, RecordWriter
from bench.tunnel import role

#: RFC 6455, section 1.3.
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: Seconds after which a client that does not end is killed.
LIMIT = 20.0
#: Bytes of one write.
WRITE_BYTES = 128 * 1024

#: Frames of a server, which are not masked: repeated without end.
FRAMES = {
    "empty-pings": b"\x89\0",
    "full-pings": b"\x89\x7d" + bytes(125),
    "empty-fragments": b"\x02\x01a" + b"\0\0" * 4000 + b"\x80\x01b",
    "empty-messages": b"\x82\0",
    "frames-14": b"\x82\x0e" + b"\xff" * 6 + bytes.fromhex("02ee00000077") + b"\x88\xb6",
    "frames-1514": b"\x82\x7e\x05\xea" + b"\xff" * 6 + bytes.fromhex("02ee00000077") + b"\x88\xb6" + bytes(1500),
}
#: Records of TLS: what one more is.
RECORDS: dict[str, Callable[[RecordWriter], bytes]] = {
    "tls-key-updates": RecordWriter.key_update,
    "tls-key-updates-asked": lambda writer: writer.key_update(KEY_UPDATE_REQUESTED),
    "tls-byte-records": lambda writer: writer.record(DATA, b"\x89"),
}


def measure(checkout: Path, seconds: float, kinds: Sequence[str]) -> dict[str, Any]:
    """Flood a client of the checkout with each of these for that many seconds, then end it; return the figures of
    each."""
    python = str(checked(checkout))
    found: dict[str, Any] = {}
    for kind in kinds:
        with Lab() as lab:
            found[kind] = _ended(lab, kind, python, seconds)
    return found


def _ended(lab: Lab, kind: str, python: str, seconds: float) -> dict[str, Any]:
    """Return the seconds that the end of a client took, None if it did not end; its status, negative for a signal; and
    how often it had connected."""
    scheme, (key, cert) = "wss" if kind in RECORDS else "ws", map(str, certificate(lab))
    connect = [python, "-m", "etherws", "client", "--foreground", "--cacert", cert]
    connect += ["--uri", f"{scheme}://{OUTER_B}:{PORT}/"]
    with lab.b.running(*role(__file__, kind, scheme, key, cert)) as server:
        wait_until(lambda: server.listens(PORT), "the server to listen")
        with lab.a.running(*connect, directory=lab.directory) as client:
            wait_until(lambda: client.check() and "connected" in client.so_far(), f"{kind}: the client")
            wait_until(lambda: "flooding" in server.so_far(), f"{kind}: the flood")
            time.sleep(seconds)
            begun, took = time.monotonic(), None
            client.notify(signal.SIGTERM)
            with suppress(BenchError):
                client.output(LIMIT)
                took = round(time.monotonic() - begun, 3)
            connected = client.so_far().count("connected")
            return {"seconds until it ended": took, "status": client.status(), "connected": connected}


def serve(kind: str, scheme: str, key: str, cert: str) -> None:
    """Be the server."""
    tls = tls_records.context(files=(Path(key), Path(cert))) if scheme == "wss" else None
    with socket.create_server((OUTER_B, PORT)) as listening:
        while True:
            with listening.accept()[0] as sock, suppress(OSError):
                if tls:
                    writer, receive = tls_records.handshake(sock, tls)
                    sock.sendall(writer.record(DATA, answer(receive())))
                    flood(sock, _records(writer, RECORDS[kind]))
                else:
                    sock.sendall(answer(sock.recv(65536)))
                    flood(sock, _frames(FRAMES[kind]))


def answer(request: bytes) -> bytes:
    """Return the 101 to this request."""
    found = re.search(rb"Sec-WebSocket-Key: (\S+)", request)
    value = base64.b64encode(hashlib.sha1((found[1] if found else b"") + GUID).digest())
    lines = [b"HTTP/1.1 101 x", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + value]
    return b"\r\n".join([*lines, b"", b""])


def flood(sock: socket.socket, pieces: Iterator[bytes]) -> None:
    """Send until an OSError comes."""
    print("flooding", flush=True)
    for piece in pieces:
        sock.sendall(piece)


def _frames(frame: bytes) -> Iterator[bytes]:
    piece = frame * (1 + WRITE_BYTES // len(frame))
    while True:
        yield piece


def _records(writer: RecordWriter, more: Callable[[RecordWriter], bytes]) -> Iterator[bytes]:
    while True:
        piece = bytearray()
        while len(piece) < WRITE_BYTES:
            piece += more(writer)
        yield bytes(piece)


if __name__ == "__main__":
    serve(*sys.argv[1:])
