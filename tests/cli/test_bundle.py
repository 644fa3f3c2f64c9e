"""``etherws bundle``: finds what runs, prints what is in the archive."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from etherws.cli import bundle as command


def run(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it in a folder of its own."""
    return subprocess.run(
        [sys.executable, "-m", "etherws", "bundle", *arguments],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_works_when_nothing_runs(tmp_path: Path) -> None:
    done = run(tmp_path, "nowhere", ETHERWS_CLIENT_PASSWORD="hunter2hunter2")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("etherws-bundle-2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as found:
        names = [name.partition("/")[2] for name in found.getnames()]
    for name in names:
        assert f"  {name} " in done.stdout
    assert "Nothing that is called nowhere runs here." in done.stdout
    assert f"Written to {path.name} " in done.stdout
    assert "hunter2" not in done.stdout
    again = run(tmp_path, "--out", path.name)
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_what_runs_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "etherws" / "server-lan"
    folder.mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(folder / "control"))
        listener.listen()

        def answer() -> None:
            for body in (b'{"role": "server"}', b"nonsense"):
                with listener.accept()[0] as sock:
                    sock.recv(1000)
                    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
                    sock.sendall(head + body if body[:1] == b"{" else body)

        thread = threading.Thread(target=answer)
        thread.start()
        (found,) = (each for each in command._instances() if each.name == "server-lan")
        assert found.get("/status") == json.loads('{"role": "server"}')
        with pytest.raises(OSError, match="does not answer by HTTP"):
            found.get("/status")
        thread.join()
