"""The log's way out, when somebody reads it and when nobody does. Nothing may wait for it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from etherws.cli.process import log_writer
from etherws.cli.process.log_formats import Journal
from etherws.cli.process.log_writer import RECORDS_MAX, LogWriter, StandardError
from etherws.events import event
from tests.lab.hosts import PATIENCE, Host, until
from tests.lab.peer import asked

log = logging.getLogger("etherws.test")


class Target(logging.Handler):
    """Collects lines; while `gate` is closed it waits, and with `fails` it cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fails = False

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record."""
        assert self.gate.wait(PATIENCE)
        if self.fails:
            self.handleError(record)
        else:
            self.lines.append(self.format(record))


@pytest.fixture
def target() -> Target:
    """Where the lines go."""
    return Target()


@pytest.fixture
def writer(target: Target) -> Iterator[LogWriter]:
    """Writes what `log` gets to the target."""
    writer = LogWriter(target)
    log.addHandler(writer)
    log.setLevel(logging.INFO)
    yield writer
    log.removeHandler(writer)
    log.setLevel(logging.NOTSET)


def test_lines_come_in_their_order_with_their_tracebacks(writer: LogWriter, target: Target) -> None:
    log.info("%d %s", 1, "one")
    try:
        raise KeyError("why")
    except KeyError:
        log.exception("two")
    writer.flush()
    assert target.lines[0] == "1 one"
    assert target.lines[1].startswith("two\nTraceback")
    assert target.lines[1].endswith("KeyError: 'why'")


def test_the_thread_can_do_something_else(writer: LogWriter) -> None:
    found: list[str] = []
    writer.in_thread(lambda: found.append(threading.current_thread().name))
    assert found == ["log"]


def test_what_finds_no_room_is_counted_and_said_where_it_is_missing(writer: LogWriter, target: Target) -> None:
    target.gate.clear()
    for number in range(RECORDS_MAX + 501):
        log.info("%d", number)
    # The thread has at most one of them in its hand.
    missing = RECORDS_MAX + 501 - len(target.lines)
    assert missing > 500
    target.gate.set()
    writer.flush()
    until(lambda: "left out" in target.lines[-1], "the count")
    assert target.lines[:RECORDS_MAX] == [str(number) for number in range(RECORDS_MAX)]
    lost = RECORDS_MAX + 501 - (len(target.lines) - 1)
    assert target.lines[-1] == f"{lost} lines of the log were left out: nobody read them in time"
    log.info("again")
    writer.flush()
    assert target.lines[-1] == "again"


def test_gaps_are_few_while_the_reader_is_slow(writer: LogWriter, target: Target) -> None:
    target.gate.clear()
    for number in range(RECORDS_MAX + 100):
        log.info("%d", number)
    # The reader takes a few lines; the others still have to wait for room.
    writer._waiting.get()
    writer._waiting.get()
    log.info("too soon")
    for _ in range(RECORDS_MAX // 2):
        writer._waiting.get()
    log.info("with room")
    target.gate.set()
    writer.flush()
    notices = [index for index, line in enumerate(target.lines) if "left out" in line]
    assert len(notices) == 1
    assert target.lines[notices[0] + 1 :] == ["with room"]
    assert "too soon" not in target.lines


def test_what_cannot_be_written_is_counted_until_it_can(writer: LogWriter, target: Target) -> None:
    target.fails = True
    for number in range(3):
        log.info("%d", number)
        writer.flush()
    target.fails = False
    log.info("it is back")
    writer.flush()
    assert target.lines == ["3 lines of the log were left out: nobody read them in time", "it is back"]


def test_the_end_of_a_process_waits_for_nobody_who_reads(
    writer: LogWriter, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "FLUSH_TIMEOUT", 100 * PATIENCE)
    log.info("last")
    # As logging.shutdown() does.
    writer.acquire()
    flushing = threading.Thread(target=writer.flush, daemon=True)
    flushing.start()
    flushing.join(PATIENCE)
    writer.release()
    assert not flushing.is_alive()
    assert target.lines == ["last"]


def test_flush_does_not_wait_for_ever(writer: LogWriter, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "FLUSH_TIMEOUT", 0.01)
    target.gate.clear()
    log.info("lost")
    writer.flush()
    assert target.lines == []
    target.gate.set()


@contextlib.contextmanager
def unread_pipe() -> Iterator[tuple[int, int]]:
    """A pipe that is full."""
    reader, end = os.pipe()
    try:
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
        os.write(end, b"x" * 4096)
        yield reader, end
    finally:
        os.close(reader)
        os.close(end)


def test_standard_error_that_does_not_block_is_waited_for() -> None:
    code = (
        "import logging; from etherws.cli.process import log_writer\n"
        "log_writer.log_to_standard_error(); logging.getLogger().warning('x' * 200_000); log_writer.flush()"
    )
    reader, end = os.pipe()
    os.set_blocking(end, False)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=end)
    os.close(end)
    with open(reader, "rb") as file:
        assert file.read().endswith(b"WARNING " + b"x" * 200_000 + b"\n")
    assert process.wait(PATIENCE) == 0


def test_a_closed_standard_error_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[logging.LogRecord] = []
    handler = StandardError()
    monkeypatch.setattr(handler, "handleError", failed.append)

    def fails(*_: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", fails)
    record = logging.makeLogRecord({"msg": "x"})
    handler.emit(record)
    assert failed == [record]


def flood(host: Host, count: int) -> None:
    """Have the server log a line for each of so many requests."""
    for _ in range(count):
        answer = asked(host, Origin="https://evil.example/" + "x" * 100, Upgrade="websocket")[0]
        assert answer.startswith(b"HTTP/1.1 4")


def wait_for_answers(host: Host) -> None:
    """Wait until the server answers."""

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return bool(asked(host)[0])
        return False

    until(answers, "the server to answer")


def test_a_server_whose_standard_error_nobody_reads_goes_on(host: Host) -> None:
    with unread_pipe() as (reader, end):
        code = f"import os, runpy; os.dup2({end}, 2); runpy.run_module('etherws', run_name='__main__')"
        process = host.run(sys.executable, "-c", code, "server", "--foreground", "--debug", pass_fds=[end])
        until(lambda: "ethws0" in host.links(), "the interface")
        wait_for_answers(host)
        flood(host, 50)
        process.signal(signal.SIGTERM)
        assert process.ends() == 0
        assert os.read(reader, 4096) == b"x" * 4096


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_syslog_that_does_not_read_is_written_to_later(
    kind: socket.SocketKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "SYSLOG", str(tmp_path / "log"))
    monkeypatch.setattr(log_writer, "FLUSH_TIMEOUT", 0.01)
    monkeypatch.setattr(log_writer, "RECORDS_MAX", 10)
    handlers = list(logging.getLogger().handlers)
    # pytest's own handlers keep every line.
    monkeypatch.setattr(log, "propagate", False)
    with socket.socket(socket.AF_UNIX, kind) as syslog:
        syslog.bind(str(tmp_path / "log"))
        if kind == socket.SOCK_STREAM:
            syslog.listen()
        log_writer.log_to_syslog()
        log.addHandler(logging.getLogger().handlers[-1])
        try:
            for number in range(5000):
                log.error("%d %s", number, "x" * 1000)
            log_writer.flush()
            reader = syslog.accept()[0] if kind == socket.SOCK_STREAM else syslog
            reader.settimeout(PATIENCE)
            received = b""
            while b"lines of the log were left out" not in received:
                received += reader.recv(65536)
            if reader is not syslog:
                reader.close()
            assert f"etherws[{os.getpid()}]: 0 xxx".encode() in received
            assert b" 4999 " not in received
        finally:
            for handler in set(logging.getLogger().handlers) - set(handlers):
                logging.getLogger().removeHandler(handler)
                log.removeHandler(handler)
                assert isinstance(handler, LogWriter)
                handler._target.close()


def test_a_daemon_whose_syslog_does_not_read_goes_on(host: Host, tmp_path: Path) -> None:
    code = (
        "import sys; from etherws.cli import main; from etherws.cli.process import log_writer\n"
        f"log_writer.SYSLOG = {str(tmp_path / 'log')!r}; main()"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "log"))
        pidfile = tmp_path / "pid"
        process = host.run(sys.executable, "-c", code, "server", "--log-level", "debug", "--pidfile", str(pidfile))
        assert process.ends() == 0, process.output
        pid = int(pidfile.read_text())
        # A datagram socket takes some ten records (net.unix.max_dgram_qlen), and then has whoever writes wait.
        flood(host, 60)
        syslog.settimeout(PATIENCE)
        lines = ""
        while lines.count("etherws[") < 60:
            lines += syslog.recv(65536).decode() + "\n"
        os.kill(pid, signal.SIGTERM)
        until(lambda: not pidfile.exists(), "the daemon to end")
    assert lines.startswith(f"<12>etherws[{pid}]: anyone who reaches this server may join")
    assert "left out" not in lines


@pytest.mark.parametrize("by_journald", [True, False])
def test_journald_gets_levels_and_no_second_time(by_journald: bool) -> None:
    code = (
        "import logging, os, sys; from etherws.cli.process import log_writer;"
        "found = os.fstat(2); os.environ['JOURNAL_STREAM'] = f'{found.st_dev}:{found.st_ino + int(sys.argv[1])}';"
        "log_writer.log_to_standard_error(); log = logging.getLogger(); log.setLevel(1);"
        "[log.log(level, f'level {level}\\nmore') for level in (10, 20, 30, 40, 50)]; log.info(''); log_writer.flush()"
    )
    argv = [sys.executable, "-c", code, "0" if by_journald else "1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    if by_journald:
        levels = {10: 7, 20: 6, 30: 4, 40: 3, 50: 3}
        assert lines == [
            *(f"<{number}>{text}" for level, number in levels.items() for text in (f"level {level}", "more")),
            "<6>",
        ]
    else:
        assert lines[0].endswith("DEBUG level 10")
        assert lines[0][:2] == "20"


def test_a_line_for_syslog_has_no_time_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "SYSLOG", str(tmp_path / "log"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "log"))
        syslog.settimeout(PATIENCE)
        log_writer.log_to_syslog()
        handler = logging.getLogger().handlers[-1]
        try:
            log.warning("a line")
            # user.warning (syslog(3))
            assert syslog.recv(1000).rstrip(b"\0") == f"<12>etherws[{os.getpid()}]: a line".encode()
        finally:
            logging.getLogger().removeHandler(handler)


def test_journald_gets_the_level_before_an_object() -> None:
    code = (
        "import logging, os; from etherws.cli.process import log_writer;"
        "found = os.fstat(2); os.environ['JOURNAL_STREAM'] = f'{found.st_dev}:{found.st_ino}';"
        "log_writer.log_to_standard_error('json'); logging.warning('two\\nlines'); log_writer.flush()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.startswith("<4>{")
    assert json.loads(done.stderr[3:])["text"] == "two\nlines"


@pytest.mark.parametrize("form", ["json", "text", "journal"])
def test_syslog_gets_objects_and_the_journal_records(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "SYSLOG", str(tmp_path / "log"))
    monkeypatch.setattr(log_writer, "Journal", lambda: Journal(str(tmp_path / "log")))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "log"))
        syslog.settimeout(PATIENCE)
        log_writer.log_to_syslog(form)
        handler = logging.getLogger().handlers[-1]
        try:
            log.warning("a line", extra=event("join", identity="alice"))
            received = syslog.recv(1000)
        finally:
            logging.getLogger().removeHandler(handler)
            assert isinstance(handler, LogWriter)
            handler._target.close()
    begin = f"<12>etherws[{os.getpid()}]: ".encode()
    if form == "journal":
        assert b"\nETHERWS_CLIENT=alice\n" in received
    elif form == "json":
        assert json.loads(received.removeprefix(begin).rstrip(b"\0"))["identity"] == "alice"
    else:
        assert received.rstrip(b"\0") == begin + b"a line"
