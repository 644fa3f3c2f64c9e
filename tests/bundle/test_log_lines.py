"""The last lines of the log, from the journal or from a file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from etherws.bundle import log_lines as module
from etherws.bundle.log_lines import LINES_MAX, SIZE_MAX, log_lines


@pytest.fixture(autouse=True)
def no_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where a program journalctl can be put; there is none yet."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(shutil, "which", lambda name: str(path) if (path := tmp_path / "bin" / name).exists() else None)
    return tmp_path / "bin" / "journalctl"


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_file_of_syslog(tmp_path: Path) -> None:
    path = tmp_path / "syslog"
    os.mkfifo(tmp_path / "fifo")
    assert log_lines((tmp_path / "none", tmp_path / "fifo")).startswith("no log of etherws was found")
    path.write_text("x kernel: other\n" + "".join(f"etherws[7]: line {number}\n" for number in range(LINES_MAX + 5)))
    lines = log_lines((tmp_path / "none", path)).splitlines()
    assert (len(lines), lines[-1]) == (LINES_MAX, f"etherws[7]: line {LINES_MAX + 4}")
    path.write_text("nothing of ours\n")
    assert log_lines((path,)).startswith("no log")
    path.write_bytes(b"etherws: \xff\n" + b"etherws: " + b"x" * 2 * SIZE_MAX)
    assert len(log_lines((path,))) <= SIZE_MAX


def test_the_journal(no_journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(no_journal, 'echo "$@" | grep -q SYSLOG_IDENTIFIER=etherws && echo a line')
    assert log_lines(()) == "a line\n"
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    program(no_journal, "exec sleep 100")
    assert log_lines(()).startswith("no log")
    no_journal.write_bytes(b"\x7fELF")
    assert log_lines(()).startswith("no log")
