"""A worker's lines: their level and text, what is cut, what is left out, and what is said once."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import gevent
import pytest

from etherws.events import Event, event, event_of
from etherws.workers.worker_log import ABOUT_MAX, LINE_MAX, SAME_MAX, SAME_WITHIN, LevelPrefix, Repeated, read_lines

log = logging.getLogger("etherws.test")


def logged(caplog: pytest.LogCaptureFixture, *written: bytes, name: str = "worker 1") -> list[tuple[str, str]]:
    """What is logged of what a worker writes."""
    out, end = os.pipe()
    heard: list[str] = []
    reader = gevent.spawn(read_lines, out, name, log, Repeated(), heard.append)
    with caplog.at_level(logging.DEBUG, log.name):
        for part in written:
            while part:
                gevent.sleep(0)
                part = part[os.write(end, part[:4096]) :]
        os.close(end)
        reader.get()
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert heard == [text.partition(": ")[2] for level, text in found if level in ("WARNING", "ERROR")]
    return found


def test_level_name_and_text(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(caplog, b"<20>10.0.0.1 joined\n<30>no", b" version 2\n<10>x\n") == [
        ("INFO", "worker 1: 10.0.0.1 joined"),
        ("WARNING", "worker 1: no version 2"),
        ("DEBUG", "worker 1: x"),
    ]


def test_what_python_says_of_a_crash_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(caplog, b"Fatal Python error: Aborted\n\n  File \x1b[1m\xff") == [
        ("ERROR", "worker 1: Fatal Python error: Aborted"),
        ("ERROR", "worker 1:   File ?[1m\ufffd"),
    ]


def test_a_line_without_end_takes_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    lines = logged(caplog, b"x" * (10 * LINE_MAX))
    assert all(len(text) < 70_000 for _, text in lines)
    assert sum(text.count("x") for _, text in lines) >= LINE_MAX


def test_the_same_warning_of_several_workers_is_said_once() -> None:
    now = 0.0
    repeated = Repeated(lambda: now)
    assert not repeated("worker 1", "cannot read it")
    assert repeated("worker 2", "cannot read it")
    # Its own worker says it again: that is news.
    assert not repeated("worker 1", "cannot read it")
    assert not repeated("worker 2", "cannot read another")
    now = SAME_WITHIN + 1
    assert not repeated("worker 2", "cannot read it")


def test_what_is_remembered_has_a_bound() -> None:
    repeated = Repeated()
    for number in range(3 * SAME_MAX):
        assert not repeated("worker 1", f"line {number}")
    assert len(repeated._said) == SAME_MAX


WRITER = """
import logging, sys
from etherws.workers.worker_log import LevelPrefix, StderrHandler
log = logging.getLogger()
log.addHandler(StderrHandler(LevelPrefix("%(message)s")))
log.setLevel("INFO")
log.info("first\\nsecond")
for number in range(3000):
    log.info("line %d of many", number)
print("written", flush=True)
sys.stdin.readline()
log.info("last " + "x" * 10000)
"""


def test_nobody_reads_and_the_worker_goes_on() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    # It has written all that it would, and nobody has read a byte.
    assert process.stdout.readline() == "written\n"
    assert process.stderr
    early = os.read(process.stderr.fileno(), 1 << 20).decode()
    rest = process.communicate("\n")[1]
    lines = (early + rest).splitlines()
    assert lines[:2] == ["<20>first", "<20>second"]
    counted = [line for line in lines if "were left out" in line]
    assert len(counted) == 1
    left_out = int(counted[0].removeprefix("<30>").split()[0])
    assert left_out + sum(line.endswith("of many") for line in lines) == 3000
    assert lines[-1].startswith("<20>last xxx")
    assert len(lines[-1]) == LINE_MAX - 1


def test_a_closed_standard_error_is_no_error() -> None:
    code = WRITER.replace("import logging, sys", "import logging, os, sys; os.close(2)")
    done = subprocess.run([sys.executable, "-c", code], input="\n", text=True, capture_output=True, check=False)
    assert done.returncode == 0


def test_an_empty_record_is_a_line() -> None:
    assert LevelPrefix("%(message)s").format(logging.makeLogRecord({"msg": "", "levelno": 20})) == "<20>"


def test_what_a_record_is_about_comes_along(caplog: pytest.LogCaptureFixture) -> None:
    record = logging.makeLogRecord({"msg": "joined\x1f[]\nmore", "levelno": 20, **event("join", identity="a\x1f\n<>")})
    assert logged(caplog, LevelPrefix("%(message)s").format(record).encode() + b"\n") == [
        ("INFO", "worker 1: joined?[]"),
        ("INFO", "worker 1: more"),
    ]
    assert [event_of(record) for record in caplog.records] == [
        Event("join", {"identity": "a\x1f\n<>"}),
        Event("other", {}),
    ]


def test_of_very_much_only_the_kind_comes_along(caplog: pytest.LogCaptureFixture) -> None:
    record = logging.makeLogRecord({"msg": "x", "levelno": 20, **event("refused", reason="y" * ABOUT_MAX)})
    assert logged(caplog, LevelPrefix("%(message)s").format(record).encode()) == [("INFO", "worker 1: x")]
    assert event_of(caplog.records[0]) == Event("refused", {})


@pytest.mark.parametrize("about", ["", "[", "[1]", '["join", {"kind": 1}]', '["join", []]', "[" * 100_000, "{}"])
def test_what_is_no_event_is_left_out(caplog: pytest.LogCaptureFixture, about: str) -> None:
    assert logged(caplog, f"<20>\x1f{about[:2000]}\x1fx".encode()) == [("INFO", "worker 1: x")]
    assert event_of(caplog.records[0]) == Event("other", {})
