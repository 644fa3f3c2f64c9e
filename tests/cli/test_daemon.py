"""The process as a whole: an error that nobody thought of ends one request or one session, and nothing else."""

from __future__ import annotations

import contextlib
import sys

import pytest

from tests.lab.hosts import Host
from tests.lab.peer import asked

#: Code that makes a mistake in the server: in a session once it runs, in a request, in a new connection.
FAULTS = {
    "session": "from etherws.tunnel.session import Session; Session.run = lambda _: {}['in a session']",
    "request": "from etherws.server import application; application.handshake.accept = lambda _: {}['in a request']",
    "connection": "from etherws.server.serve import Server; Server.handle = lambda *_: {}['in a connection']",
}

#: What the client gets.
ANSWERS = {"session": b"HTTP/1.1 101 Switching Protocols", "request": b"HTTP/1.1 500 Internal Server Error"}


@pytest.mark.parametrize("where", FAULTS)
def test_an_unexpected_error_ends_one_connection_only(host: Host, where: str) -> None:
    code = f"{FAULTS[where]}\nfrom etherws.cli import main\nmain()"
    server = host.run(sys.executable, "-c", code, "server", "--foreground", "--device", "lan0")
    server.says("listening")
    for _ in range(8):
        # Without %d in the name there is one port. Each has to be free for the next client.
        with contextlib.suppress(ConnectionResetError):
            assert asked(host)[0] == ANSWERS.get(where, b"")
    server.says(f"KeyError: 'in a {where}'", times=5)
    assert server.output.count("ERROR unexpected error; please report it\nTraceback") == 5
    server.stop()
