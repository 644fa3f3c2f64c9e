"""Where the log of a process in the background goes, as the start says it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from etherws.cli.process import background_log
from etherws.cli.process.background_log import how_to_read, socket_path
from etherws.errors import SettingsError


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of journald's; there is no other log."""
    folder = tmp_path / "journal"
    folder.mkdir()
    monkeypatch.setattr(background_log, "_JOURNAL", f"{folder}/")
    monkeypatch.setattr(background_log, "_JOURNAL_SOCKET", f"{folder}/dev-log")
    monkeypatch.setattr(background_log, "_FILES", (str(tmp_path / "syslog"), str(tmp_path / "messages")))
    return folder


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_syslog_daemon_and_its_file(journal: Path, tmp_path: Path, kind: socket.SocketKind) -> None:
    log = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, kind) as daemon:
        daemon.bind(log)
        assert socket_path(log) == log
        assert how_to_read(log) == f"its log: the lines of etherws in what the program at {log} writes"
        for at, name in enumerate(("messages", "syslog", "messages")):
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (at, at))
            assert how_to_read(log) == f"its log: grep etherws {tmp_path / name}"


def test_journald_by_the_usual_link_and_by_its_own_socket(journal: Path, tmp_path: Path) -> None:
    link = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(journal / "dev-log"))
        for path in (str(journal / "dev-log"), str(link)):
            assert socket_path(str(link)) == path
            assert how_to_read(str(link)) == "its log: journalctl -t etherws -f"
            if not link.is_symlink():
                link.symlink_to(journal / "dev-log")


def test_without_a_daemon_the_start_says_so(journal: Path, tmp_path: Path) -> None:
    path = tmp_path / "log"
    words = f"nothing is logged: no syslog daemon listens on {path}; start one, or etherws with --foreground"
    assert how_to_read(str(path)) == words
    # One that has died leaves its socket.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
    assert how_to_read(str(path)) == words


def test_a_machine_without_a_journal_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_log, "SOCKET", str(tmp_path / "socket"))
    background_log.check("text")
    background_log.check("json")
    with pytest.raises(SettingsError, match="no journald listens"):
        background_log.check("journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        background_log.check("journal")


def test_the_journal_is_read_by_its_own_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_log, "SOCKET", f"{background_log._JOURNAL}socket")
    monkeypatch.setattr(os.path, "realpath", str)
    assert how_to_read(str(tmp_path / "none"), "journal") == "its log: journalctl -t etherws -f"
