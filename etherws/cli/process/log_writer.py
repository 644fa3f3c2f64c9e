"""The log's way out of the process: a thread of its own writes it to standard error, to syslog or to the journal.

Nobody may read what is written: a pager that waits for a key, a journald that has stalled. Then the thread waits, and
not the event loop with all tunnels in it. Records queue up meanwhile; of those that find no room the number is said as
soon as there is room again. daemon.py uses this; log_formats.py has the forms of a record.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import select
import threading
from collections.abc import Callable

from etherws.cli.process import background_log
from etherws.cli.process.log_formats import JOURNAL, JSON, TEXT, Journal, JsonLines, LeveledLines

log = logging.getLogger("etherws")

#: syslog's socket (syslog(3)); most containers have none.
SYSLOG = "/dev/log"

#: Records that wait for the thread, a few hundred bytes each. A start with a thousand clients logs as many.
RECORDS_MAX = 2000

#: Records of lower levels are not written.
_level = logging.NOTSET

#: Seconds that flush() waits, and so the end of the process. Written at once is what somebody reads; of the others'
#: last lines as much as the pipe or the socket has room for.
FLUSH_TIMEOUT = 1.0


class LogWriter(logging.handlers.QueueHandler):
    """Has a thread write records by another handler. To log never blocks."""

    def __init__(self, target: logging.Handler) -> None:
        """`target` is used by the thread alone, without its lock: it may wait in its emit() for ever."""
        self._waiting: queue.SimpleQueue[logging.LogRecord | threading.Event | Callable[[], object]]
        self._waiting = queue.SimpleQueue()
        super().__init__(self._waiting)
        self._target = target
        target.handleError = self._note_failure  # type: ignore[method-assign, assignment]
        self._left_out = 0
        # For that number. Not the handler's own lock: logging.shutdown() has that while it waits in flush().
        self._counting = threading.Lock()
        # Whether there was no room; until half of it is free again, so that gaps are few.
        self._full = False
        self._failed = False
        # A daemon: a thread that waits for ever does not hold up the end of the process.
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Give a record to the thread, or count it if there is no room."""
        self._full = self._waiting.qsize() >= (RECORDS_MAX // 2 if self._full else RECORDS_MAX)
        if self._full:
            with self._counting:
                self._left_out += 1
            return
        if notice := self._take_left_out():
            self._waiting.put(notice)
        self._waiting.put(record)

    def flush(self) -> None:
        """Wait until all is written that was logged so far, for FLUSH_TIMEOUT seconds at most."""
        written = threading.Event()
        self._waiting.put(written)
        written.wait(FLUSH_TIMEOUT)

    def in_thread(self, call: Callable[[], object]) -> None:
        """Have the thread call a function, and wait for that as flush() does."""
        self._waiting.put(call)
        self.flush()

    def _run(self) -> None:
        while True:
            item = self._waiting.get()
            if isinstance(item, logging.LogRecord):
                self._write(item)
            elif callable(item):
                item()
            if not self._failed and self._waiting.empty() and (notice := self._take_left_out()):
                self._write(notice)
            if isinstance(item, threading.Event):
                item.set()

    def _write(self, record: logging.LogRecord) -> None:
        self._failed = False
        self._target.emit(record)
        if self._failed:
            with self._counting:
                self._left_out += getattr(record, "left_out", 1)

    def _note_failure(self, _: logging.LogRecord) -> None:
        self._failed = True

    def _take_left_out(self) -> logging.LogRecord | None:
        """A record that says how many were left out; None if none was."""
        with self._counting:
            count, self._left_out = self._left_out, 0
        if not count:
            return None
        text = f"{count} lines of the log were left out: nobody read them in time"
        values = {"name": log.name, "levelno": logging.WARNING, "levelname": "WARNING", "msg": text, "left_out": count}
        return logging.makeLogRecord(values)


class StandardError(logging.Handler):
    """Writes to descriptor 2. sys.stderr has a lock that the interpreter waits for at its end."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; wait until it is written."""
        try:
            data = (self.format(record) + "\n").encode(errors="backslashreplace")
            while data:
                try:
                    data = data[os.write(2, data) :]
                except BlockingIOError:
                    # Another process that has the same terminal or pipe has made it so.
                    poll = select.poll()
                    poll.register(2, select.POLLOUT)
                    poll.poll()
        except OSError:
            self.handleError(record)


def log_to_standard_error(form: str = TEXT) -> LogWriter:
    """Log to standard error from now on; with the form "journal" to the journal itself."""
    if form == JOURNAL:
        return _add(Journal())
    target = StandardError()
    if _journald_reads():
        target.setFormatter(LeveledLines(JsonLines() if form == JSON else logging.Formatter("%(message)s")))
    else:
        text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
        target.setFormatter(JsonLines() if form == JSON else text)
    return _add(target)


def _journald_reads() -> bool:
    """Whether standard error is journald's: JOURNAL_STREAM has its device and inode then (systemd.exec(5))."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def log_to_syslog(form: str = TEXT) -> None:
    """Log to syslog from now on; with the form "journal" to the journal itself. If there is none, each record looks for
    it again."""
    if form == JOURNAL:
        _add(Journal())
        return
    # syslog notes the time itself, and the level comes before the text.
    target = logging.handlers.SysLogHandler(background_log.socket_path(SYSLOG) or SYSLOG)
    target.ident = f"etherws[{os.getpid()}]: "
    target.setFormatter(JsonLines() if form == JSON else logging.Formatter("%(message)s"))
    _add(target)


def write_from(level: int) -> None:
    """Write records of this level of logging and above, by each way that is begun from now on."""
    global _level
    _level = level


def flush() -> None:
    """Wait until all is written, for FLUSH_TIMEOUT seconds for each way at most."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def in_threads(call: Callable[[], object]) -> None:
    """Have each thread that writes the log call a function; wait for that, as for flush()."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogWriter):
            handler.in_thread(call)


def _add(target: logging.Handler) -> LogWriter:
    writer = LogWriter(target)
    writer.setLevel(_level)
    logging.getLogger().addHandler(writer)
    return writer
