"""The control socket and --monitor of whole processes: at their start, over their restarts, and at their end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from etherws.small_files import cannot_read
from tests.lab.doors import ask, login, monitor_of
from tests.lab.hosts import PATIENCE, Host, until

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "monitoring.rst"


@pytest.fixture
def path(control_folder: str) -> Iterator[Path]:
    """Where a server's control socket is; nothing is left there."""
    folder = Path(control_folder) / f"doors-{os.getpid()}"
    yield folder / "control"
    shutil.rmtree(folder, ignore_errors=True)


def test_a_server_answers_from_its_start_to_its_end(host: Host, path: Path) -> None:
    options = ["--port", "99", "--control", str(path), "--monitor", "9402", "--log-level", "warning"]
    server = host.etherws("server", "--foreground", *options)
    until(path.exists, "the server")
    assert ask(path, "GET /readyz").status == 200
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    status = ask(path, "GET /status").json
    assert (status["role"], status["device"], status["pid"]) == ("server", "ethws0", server.pid)
    # Events are complete, whatever is written of them.
    before = ask(path, "GET /events").json
    assert any("ethws0 is up, listening on" in each["text"] for each in before["events"])
    assert "listening on" not in server.output
    port, cookie = login(host, path)
    assert (port, ask(monitor_of(host, port), "GET /status", Cookie=cookie).status) == (9402, 200)
    assert ask(monitor_of(host, port), "GET /status").status == 401
    # The next image of the process, which a rehearsal comes before.
    server.signal(signal.SIGUSR2)

    def taken_over() -> bool:
        # Who asks between the two is hung up on.
        with contextlib.suppress(OSError, IndexError):
            texts = [each["text"] for each in ask(path, "GET /events").json["events"]]
            return any(text.startswith("handed over to version") for text in texts)
        return False

    until(taken_over, "the next image")
    after = ask(path, "GET /events").json
    # They count on: who follows goes on where he was.
    assert after["events"][0]["number"] > before["next"]
    assert ask(monitor_of(host, port), "GET /status", Cookie=cookie).status == 200
    # A second one of the same name.
    second = host.etherws("client", "--foreground", "--device", "x", "--control", str(path), "ws://127.0.0.1:1/")
    second.says("there is no control socket, and all else goes on: cannot listen on unix:")
    second.says("cannot connect to")
    second.stop()
    assert ask(path, "GET /healthz").status == 200
    assert ask(path, "POST /stop", b"{}").json == {}
    server.ends()
    assert not path.exists()
    assert not path.parent.exists()


def test_the_examples_of_the_document(host: Host, path: Path) -> None:
    examples = re.findall(r"^  # (curl .*)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(examples) >= 10
    server = host.etherws("server", "--foreground", "--port", "99", "--control", str(path))
    server.says("listening on")
    client = host.etherws("client", "--foreground", "--device", "branch1", "ws://127.0.0.1:99/")
    client.says("connected to")
    for example in examples:
        line = example.replace("/run/etherws/server-ethws0/control", str(path)).replace("branch1", "ethws0")
        # Those that follow have no end of their own.
        limit = "-m 0.5" if " -N " in line else f"-m {PATIENCE:g}"
        done = subprocess.run(
            ["sh", "-c", line.replace("curl ", f"curl -sS {limit} ", 1)], capture_output=True, check=False
        )
        if " -N " in line:
            assert done.stdout.count(b"\ndata: {") >= 2
        elif "/healthz" in line or "/readyz" in line:
            assert done.stdout == b"ok\n"
        elif "/metrics" in line:
            assert b"etherws_sessions 1.0\n" in done.stdout
        else:
            assert isinstance(json.loads(done.stdout), dict), (line, done)
            assert b'"error"' not in done.stdout, (line, done.stdout)
    # The last of them is to stop.
    assert server.ends() == 0


def test_a_crash_leaves_nothing_in_the_way(host: Host, path: Path) -> None:
    """The parent of two workers answers for both."""
    options = ["--foreground", "--workers", "2", "--port", "99", "--control", str(path)]
    for number in (1, 2):
        server = host.etherws("server", *options)
        server.says("with 2 workers")
        assert "no control socket" not in server.output
        assert [each["answers"] for each in ask(path, "GET /status").json["workers"]] == [True, True]
        if number == 1:
            server.signal(signal.SIGKILL)
            server.ends()
            assert path.exists()
    server.stop()
    assert not path.exists()


def test_a_client_answers_before_it_is_connected(host: Host, path: Path, tmp_path: Path) -> None:
    client = host.etherws("client", "ws://127.0.0.1:1/", "--control", str(path), "--pidfile", str(tmp_path / "pid"))
    assert client.ends() == 0
    pid = int((tmp_path / "pid").read_text())
    try:
        status = ask(path, "GET /status").json
        assert (status["role"], status["pid"], status["sessions"]) == ("client", pid, [])
        assert ask(path, "GET /readyz").status == 503
        assert ask(path, "POST /page").status == 409
    finally:
        os.kill(pid, signal.SIGTERM)
    until(lambda: not path.exists(), "the client to end")


def test_a_port_that_is_taken_ends_the_start(host: Host, path: Path) -> None:
    with host.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 9402))
        taken.listen()
        server = host.etherws("server", "--foreground", "--port", "99", "--control", str(path), "--monitor", "9402")
        assert server.ends() == 1
    assert "cannot listen on --monitor 127.0.0.1:9402: port 9402 is taken by " in server.output
    assert not path.exists()
    assert "ethws0" not in host.links()


@pytest.mark.skipif(bool(cannot_read("/root")) or os.geteuid() != 0, reason="needs root")
def test_the_socket_is_the_users_who_runs_it(host: Host, path: Path, tmp_path: Path) -> None:
    (tokens := tmp_path / "tokens").write_text("a-token-of-a-scraper\n")
    tokens.chmod(0o600)
    monitor = ["--monitor", "942", "--monitor-token-file", str(tokens)]
    server = host.etherws(
        *("server", "--foreground", "--port", "99", "--run-as", "nobody", "--control", str(path), *monitor)
    )
    server.says("listening on")
    assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (65534, 0o600)
    assert ask(path, "GET /healthz").status == 200
    basic = "Basic dXNlcjphLXRva2VuLW9mLWEtc2NyYXBlcg=="
    assert ask(monitor_of(host, 942), "GET /status", Authorization=basic).status == 200
    server.stop()
    assert not path.exists()
