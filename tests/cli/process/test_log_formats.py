"""The forms of the log: a record stays one record, whatever a stranger has put into it."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.cli.process.log_formats import Journal, JsonLines, LeveledLines
from etherws.events import event
from tests.lab.hosts import PATIENCE

HOSTILE = "<b>\x1b[31m\n\r\u2028\u202eevil\ud800\0" + "x" * 10_000


def record_of(text: str, kind: str = "other", level: int = logging.INFO, /, **fields: Any) -> logging.LogRecord:
    """A record of the log with an event."""
    about = event(kind, **fields)
    return logging.makeLogRecord(
        {"msg": text, "levelno": level, "levelname": logging.getLevelName(level), "created": 1_700_000_000.25, **about}
    )


def parsed(data: bytes) -> dict[str, bytes]:
    """A journal entry's fields, as journald reads them."""
    found = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + size], data[8 + size :]
            assert data[:1] == b"\n"
            data = data[1:]
        found[name.decode()] = value
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[tuple[socket.socket, Journal]]:
    """A socket like journald's, and what sends to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(PATIENCE)
        handler = Journal(str(tmp_path / "socket"))
        yield sock, handler
        handler.close()


def test_an_object_has_time_level_kind_text_and_the_values() -> None:
    line = JsonLines().format(record_of("alice has joined", "join", identity="alice", sent=7, proxy=None))
    assert line == (
        '{"time": "2023-11-14T22:13:20.250000Z", "level": "info", "kind": "join", "text": "alice has joined", '
        '"identity": "alice", "sent": 7, "proxy": null}'
    )


def test_a_value_does_not_take_the_place_of_the_text() -> None:
    found = json.loads(JsonLines().format(record_of("x", "join", text="y", time=1, level=2)))
    assert (found["text"], found["level"], found["kind"], found["time"][:4]) == ("x", "info", "join", "2023")


def test_a_number_that_json_does_not_have_is_null() -> None:
    found = json.loads(JsonLines().format(record_of("x", "join", values=[math.nan, math.inf], other={1})))
    assert (found["values"], found["other"]) == ([None, None], "{1}")


@given(st.text(), st.text())
def test_whatever_is_in_it_one_object_is_one_line(text: str, identity: str) -> None:
    line = JsonLines().format(record_of(text, "refused", identity=identity))
    assert line.isascii()
    assert line.isprintable()
    found = json.loads(line)
    assert (found["text"], found["identity"]) == (text, identity)


def test_a_hostile_identity_breaks_nothing(journal: tuple[socket.socket, Journal]) -> None:
    record = record_of(HOSTILE, "refused", identity=HOSTILE)
    assert json.loads(JsonLines().format(record))["identity"] == HOSTILE
    sock, handler = journal
    handler.emit(record)
    found = parsed(sock.recv(100_000))
    assert found["ETHERWS_CLIENT"] == found["MESSAGE"] == HOSTILE.encode(errors="backslashreplace")


def test_levels_stand_before_each_line() -> None:
    lines = LeveledLines(logging.Formatter("%(message)s"))
    assert lines.format(record_of("a\nb", "other", logging.WARNING)) == "<4>a\n<4>b"
    assert lines.format(record_of("")) == "<6>"


def test_a_record_has_a_field_for_each_value(journal: tuple[socket.socket, Journal]) -> None:
    sock, handler = journal
    fields = {"identity": "alice", "device": "ethws0", "sent": {"bytes": 1}, "seconds": 0.5, "proxy": None, "kïnd-": 1}
    handler.emit(record_of("two\nlines", "leave", logging.ERROR, **fields))
    assert parsed(sock.recv(1000)) == {
        "MESSAGE": b"two\nlines",
        "PRIORITY": b"3",
        "SYSLOG_IDENTIFIER": b"etherws",
        "ETHERWS_KIND": b"leave",
        "ETHERWS_CLIENT": b"alice",
        "ETHERWS_DEVICE": b"ethws0",
        "ETHERWS_SENT": b'{"bytes": 1}',
        "ETHERWS_SECONDS": b"0.5",
        "ETHERWS_K_ND_": b"1",
    }


def test_a_long_record_goes_by_memory_that_nobody_can_change(journal: tuple[socket.socket, Journal]) -> None:
    sock, handler = journal
    handler.emit(record_of("x" * 2_000_000))
    data, fds, _, _ = socket.recv_fds(sock, 100, 1)
    assert data == b""
    with open(fds[0], "rb") as file:
        assert parsed(os.pread(file.fileno(), 3_000_000, 0))["MESSAGE"] == b"x" * 2_000_000
        with pytest.raises(PermissionError):
            os.pwrite(fds[0], b"y", 0)


def test_a_journal_that_is_gone_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "socket")
    handler = Journal(path)
    failed: list[logging.LogRecord] = []
    monkeypatch.setattr(handler, "handleError", failed.append)
    handler.emit(record_of("1"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        handler.emit(record_of("2"))
        assert parsed(sock.recv(1000))["MESSAGE"] == b"2"
    handler.emit(record_of("3"))
    assert [record.getMessage() for record in failed] == ["1", "3"]
    handler.close()
    handler.close()
