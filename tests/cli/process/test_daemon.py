"""The process as a whole: an error that nobody thought of ends one request or one session, and nothing else."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.lab.hosts import PATIENCE, Host
from tests.lab.peer import asked

#: Code that makes a mistake in the server: in a session once it runs, in a request, in a new connection.
FAULTS = {
    "session": "from etherws.tunnel.session import Session; Session.run = lambda *_, **__: {}['in a session']",
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


def test_systemd_is_told_and_the_watchdog_is_fed(host: Host, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)

        def told(text: str) -> list[str]:
            """Read messages until one has this line; return its lines."""
            while True:
                lines = manager.recv(4096).decode().split("\n")
                if text in lines:
                    return lines

        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
        server = host.etherws("server", "--port", "0", env=environ)
        told("WATCHDOG=1")
        assert any(line.startswith("STATUS=ethws0 is up, listening on") for line in told("READY=1"))
        for _ in range(3):
            told("WATCHDOG=1")
        server.signal(signal.SIGHUP)
        assert any(line.startswith("MONOTONIC_USEC=") for line in told("RELOADING=1"))
        told("READY=1")
        server.signal(signal.SIGTERM)
        told("STOPPING=1")
        assert server.ends() == 0


def test_a_name_that_comes_later_is_waited_for_under_systemd(host: Host, tmp_path: Path) -> None:
    hint = "An address in numbers needs no name server"
    server = host.etherws("server", "--foreground", "--address", "late.invalid")
    assert server.ends() == 1
    assert hint in server.output
    server = host.etherws("server", "--address", "late.invalid", env={"NOTIFY_SOCKET": str(tmp_path / "none")})
    server.says("Until then it is tried again each 1 s")
    server.stop()


def test_the_end_leaves_out_what_python_does_at_its_end(host: Host) -> None:
    # It takes a tenth of a second, for which a restart would take longer.
    code = "import atexit\nfrom etherws.cli import main\natexit.register(print, 'slowly')\nmain()"
    server = host.run(sys.executable, "-c", code, "server", "--foreground", "--port", "0")
    server.says("listening")
    server.stop()
    assert "slowly" not in server.output
