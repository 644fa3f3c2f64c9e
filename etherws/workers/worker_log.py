"""The log of a process that serves another one: a worker's lines go to the parent, which logs them as its own.

A worker writes lines to standard error, which is a pipe; so what Python itself prints when it crashes is in the log as
well. Nobody may read it at the moment: what finds no room is counted, and the worker goes on. Read next:
supervisor.py, which reads; cli/process/log_writer.py, which writes the log of the whole.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

import gevent
from gevent.os import make_nonblocking, nb_read

from etherws.events import OTHER, Event, event, event_of

#: Bytes of a line; the rest is cut off. A pipe that has room at all has room for so many (PIPE_BUF of pipe(7)).
LINE_MAX = 4096

#: Seconds within which the same warning of several workers is logged once. They read changed files at the same time.
SAME_WITHIN = 10.0

#: Warnings that are remembered for that.
SAME_MAX = 100

#: Bytes of what a record is about; with more, only its kind is told. The rest of the line is for the text.
ABOUT_MAX = 2048

#: Stands on both sides of what a record is about, and nowhere else: a control character, which JSON writes otherwise.
_MARK = "\x1f"

_PREFIX = re.compile(r"<([0-9]{1,2})>(?:\x1f(.*?)\x1f)?")


class StderrHandler(logging.Handler):
    """Writes records to standard error, or leaves them out. It never waits."""

    def __init__(self, formatter: logging.Formatter) -> None:
        """`formatter` makes the text of a record."""
        super().__init__()
        self.setFormatter(formatter)
        self._poll = select.poll()
        self._poll.register(2, select.POLLOUT)
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it."""
        if self._left_out:
            count = self._left_out
            text = f"{count} lines of the log were left out: nobody read them in time"
            if self._write(logging.makeLogRecord({"msg": text, "levelno": logging.WARNING, "levelname": "WARNING"})):
                self._left_out -= count
        if self._left_out or not self._write(record):
            self._left_out += 1

    def _write(self, record: logging.LogRecord) -> bool:
        data = self.format(record).encode(errors="backslashreplace")[: LINE_MAX - 1] + b"\n"
        try:
            events = self._poll.poll(0)
            if not events or not events[0][1] & select.POLLOUT:
                return False
            os.write(2, data)
        except OSError:
            return False
        return True


class LevelPrefix(logging.Formatter):
    """The number of the level before each line, for read_lines(), and in the first line what the record is about."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines."""
        text = super().format(record).replace(_MARK, "?")
        lines = [f"<{record.levelno}>{line}" for line in text.splitlines() or [""]]
        found = event_of(record)
        if found.kind != OTHER:
            about = json.dumps([found.kind, dict(found.fields)], default=str)
            if len(about) > ABOUT_MAX:
                about = json.dumps([found.kind, {}])
            lines[0] = f"<{record.levelno}>{_MARK}{about}{_MARK}{lines[0].partition('>')[2]}"
        return "\n".join(lines)


class Repeated:
    """Whether another worker has said the same a moment ago. One for all workers."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        #: Who said it first, and when, by text.
        self._said: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def __call__(self, name: str, text: str) -> bool:
        """Whether this text of the worker `name` need not be logged."""
        now = self._clock()
        who, when = self._said.get(text, (name, now))
        if who != name and now - when <= SAME_WITHIN:
            return True
        self._said[text] = name, now
        self._said.move_to_end(text)
        while len(self._said) > SAME_MAX:
            self._said.popitem(last=False)
        return False


def read_lines(
    fd: int, name: str, log: logging.Logger, repeated: Repeated, heard: Callable[[str], object] = lambda _: None
) -> None:
    """Log what comes from `fd` until its other end is closed, each line with the name before it. `heard` is called with
    each line that is a warning or worse. Closes `fd`."""
    make_nonblocking(fd)
    rest = b""
    try:
        while data := nb_read(fd, 65536):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > LINE_MAX:
                lines, rest = [*lines, rest[:LINE_MAX]], b""
            for line in lines:
                _log_line(line, name, log, repeated, heard)
            # A worker that writes without end must not keep the ports from their work.
            gevent.sleep(0)
        _log_line(rest, name, log, repeated, heard)
    finally:
        os.close(fd)


def _log_line(line: bytes, name: str, log: logging.Logger, repeated: Repeated, heard: Callable[[str], object]) -> None:
    text = line.decode(errors="replace").rstrip()
    # What has no level was not logged: Python's own words about a crash.
    found = _PREFIX.match(text)
    level = int(found[1]) if found else logging.ERROR
    about = _about(found[2]) if found and found[2] else {}
    text = "".join(char if char.isprintable() else "?" for char in (text[found.end() :] if found else text))
    if not text:
        return
    if level >= logging.WARNING:
        heard(text)
        if repeated(name, text):
            return
    log.log(level, "%s: %s", name, text, extra=about)


def _about(text: str) -> dict[str, Event]:
    """What a record is about, for `extra`; nothing if the text is none of LevelPrefix's."""
    try:
        kind, fields = json.loads(text)
        return event(str(kind), **fields)
    except (ValueError, TypeError, RecursionError):
        return {}
