"""Servers that are not etherws, for its client; and etherws under gunicorn."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.lab.hosts import PATIENCE, Host, Process

Talk = Callable[[socket.socket, bytes], None]


GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@contextlib.contextmanager
def serve(
    host: Host,
    talk: Talk,
    wrap: Callable[[socket.socket], socket.socket] | None = None,
    address: str = "127.0.0.1",
) -> Iterator[int]:
    """A server in a thread: `talk(socket, request)` for each connection; gives the port."""
    listener = host.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((address, 0))
    listener.listen()
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE)
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                stack.enter_context(connection)
                if wrap:
                    connection = stack.enter_context(wrap(connection))
                request = b""
                while b"\r\n\r\n" not in request and request[:1] != b"\x16" and (data := connection.recv(4096)):
                    request += data
                # A client that is stopped may leave before it asks.
                if request:
                    talk(connection, request)
                connection.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)


def answer(data: bytes) -> Talk:
    """A server that says this and hangs up."""

    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(data)

    return talk


def switching(request: bytes, **changes: bytes) -> bytes:
    """A 101 that is right but for the changes."""
    key = next(line[18:].strip() for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    headers = {
        b"Upgrade": b"websocket",
        b"Connection": b"Upgrade",
        b"Sec-WebSocket-Accept": base64.b64encode(hashlib.sha1(key + GUID).digest()),
    }
    headers.update({name.replace("_", "-").encode(): value for name, value in changes.items()})
    lines = [name + b": " + value for name, value in headers.items() if value]
    return b"HTTP/1.1 101 Switching Protocols\r\n" + b"\r\n".join(lines) + b"\r\n\r\n"


def hang(connection: socket.socket, _: bytes) -> None:
    """Say nothing until the client gives up."""
    connection.recv(1)


def gunicorn(host: Host, *arguments: str, worker: str = "etherws.worker.Worker", **env: str) -> Process:
    """Start gunicorn with our application."""
    # No control socket: its file would lie in the home directory.
    options = ["-k", worker, "--no-control-socket", "--access-logfile", "-", *arguments]
    # Its script: started by -m, gunicorn cannot start itself again (USR2), because its own folder is in sys.path then.
    return host.run(str(Path(sys.executable).with_name("gunicorn")), *options, "etherws.wsgi", env=env)
