"""``etherws bundle``: finds what runs, prints what is in the archive."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from etherws.cli import bundle as command
from etherws.cli.operate import instances
from etherws.cli.operate.control import Control
from etherws.errors import ControlError, NotAllowed


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
    assert "nothing called nowhere runs on this machine" in done.stdout
    assert f"Written to {path.name} " in done.stdout
    assert "hunter2" not in done.stdout
    again = run(tmp_path, "--out", path.name)
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_what_runs_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    lan = Control("/nowhere/server-lan/control", "server-lan")
    monkeypatch.setattr(instances, "all_instances", lambda: [lan])
    found, notes = command._running("lan")
    assert ([each.name for each in found], notes) == (["server-lan"], [])
    with pytest.raises(ControlError):
        found[0].get("/status")
    assert command._running(None)[0][0].name == "server-lan"
    found, notes = command._running("other")
    assert found == []
    assert "nothing called other runs" in notes[0]

    def refuse() -> list[Control]:
        raise NotAllowed("only root may look")

    monkeypatch.setattr(instances, "all_instances", refuse)
    assert command._running(None) == ([], ["only root may look"])
