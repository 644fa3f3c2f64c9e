"""The forms of the log (``--log-format``): text, JSON, or records for the journal with a field for each value.

A record's kind and values are those of etherws/events.py. Whatever a stranger has put into a text or a value, a record
stays one record. docs/logs.rst lists kinds and fields. Read next: log_writer.py, whose thread writes all of them.
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from etherws.events import event_of

#: What --log-format takes.
TEXT, JSON, JOURNAL = "text", "json", "journal"
FORMATS = (TEXT, JSON, JOURNAL)

#: Where journald takes records in its own form (systemd-journald.service(8)).
SOCKET = "/run/systemd/journal/socket"

#: syslog's levels (sys/syslog.h), by the least level of logging that has them.
_SYSLOG_LEVELS = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))

#: Bytes of a field's name (journald's JOURNAL_FIELD_NAME_MAX; a longer one is not stored).
_NAME_MAX = 64

#: Fields whose name in the journal is not simply theirs: who is meant is a client, whatever proved it.
_JOURNAL_NAMES = {"identity": "CLIENT"}

#: Who reads the memory of a long record must find it as it was when it was sent.
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def syslog_level(level: int) -> int:
    """syslog's number for a level of logging (syslog(3))."""
    return next(number for least, number in _SYSLOG_LEVELS if level >= least)


class LeveledLines(logging.Formatter):
    """Lines for journald on standard error: it notes the time itself, and takes the level of each line from the number
    before it (sd-daemon(3), syslog(3))."""

    def __init__(self, inner: logging.Formatter) -> None:
        """`inner` makes the lines."""
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines."""
        level = syslog_level(record.levelno)
        return "\n".join(f"<{level}>{line}" for line in self._inner.format(record).splitlines() or [""])


class JsonLines(logging.Formatter):
    """One JSON object a line, in ASCII: "time" (RFC 3339, UTC), "level", "kind", "text", and the event's values."""

    def format(self, record: logging.LogRecord) -> str:
        """The object."""
        found = event_of(record)
        time = datetime.fromtimestamp(record.created, timezone.utc)
        line = {
            "time": time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "kind": found.kind,
            "text": super().format(record),
        }
        return _json({**line, **{name: value for name, value in found.fields.items() if name not in line}})


class Journal(logging.Handler):
    """Sends records to journald in its own form (systemd's "Journal Native Protocol")."""

    def __init__(self, path: str = SOCKET) -> None:
        super().__init__()
        self._path = path
        self._socket: socket.socket | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; wait until journald has room for it. A journald that was started again is found again."""
        try:
            entry = self._entry(record)
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                self._socket.sendto(entry, self._path)
            except OSError as exc:
                # Larger than the socket's buffer: journald reads it from memory then.
                if exc.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                    raise
                self._send_memory(self._socket, entry)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        super().close()

    def _entry(self, record: logging.LogRecord) -> bytes:
        found = event_of(record)
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": syslog_level(record.levelno),
            "SYSLOG_IDENTIFIER": "etherws",
            "ETHERWS_KIND": found.kind,
        }
        for name, value in found.fields.items():
            fields.setdefault(_journal_name(name), value)
        return b"".join(_fields(fields))

    def _send_memory(self, sock: socket.socket, entry: bytes) -> None:
        fd = os.memfd_create("etherws-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(fd, "wb", buffering=0) as file:
            while entry:
                entry = entry[file.write(entry) :]
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            sock.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))], 0, self._path)


def _fields(fields: dict[str, Any]) -> Iterator[bytes]:
    """Each field in journald's form. A value with a newline has its length before it (8 bytes, little endian)."""
    for name, value in fields.items():
        if value is None:
            continue
        data = (value if isinstance(value, str) else _json(value)).encode(errors="backslashreplace")
        if b"\n" in data:
            yield b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)
        else:
            yield b"%s=%s\n" % (name.encode(), data)


def _journal_name(name: str) -> str:
    """A name that journald takes: capital letters, digits and underscores."""
    return f"ETHERWS_{re.sub('[^A-Z0-9_]', '_', _JOURNAL_NAMES.get(name, name.upper()))}"[:_NAME_MAX]


def _json(value: object) -> str:
    """The value as JSON in one line of ASCII. A number that JSON does not have becomes null."""
    try:
        return json.dumps(value, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(value, default=str), parse_constant=lambda _: None))
