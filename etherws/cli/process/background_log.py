"""Where the log of a process in the background goes, and how to read it on this machine.

Anything that listens on syslog's socket counts. That may be journald, which takes syslog's messages there; in a
container that has only journald's own folder, they go to its socket in that folder. log_writer.py sends them.
With --log-format journal they go to the socket that takes journald's own form (log_formats.py).
"""

from __future__ import annotations

import errno
import os
import socket

from etherws.cli.process.log_formats import JOURNAL, SOCKET, TEXT
from etherws.errors import SettingsError

#: Where journald's sockets are, also by the link at /dev/log, and its own for syslog's messages
#: (systemd-journald.service(8)).
_JOURNAL = "/run/systemd/journal/"
_JOURNAL_SOCKET = _JOURNAL + "dev-log"

#: Where syslog daemons write: Debian, and Red Hat and BusyBox.
_FILES = ("/var/log/syslog", "/var/log/messages")


def socket_path(syslog: str) -> str | None:
    """The socket on which somebody takes log messages now: `syslog`, or else journald's; None if there is none."""
    return next((path for path in (syslog, _JOURNAL_SOCKET) if _listens(path)), None)


def check(form: str) -> None:
    """Raise SettingsError if this machine has no journal for the form "journal" of --log-format."""
    if form == JOURNAL and not _listens(SOCKET):
        raise SettingsError(f"--log-format journal: no journald listens on {SOCKET}; use --log-format json or text")


def how_to_read(syslog: str, form: str = TEXT) -> str:
    """How to see the log of a process in the background, as part of a sentence. `form` is that of --log-format."""
    path = SOCKET if form == JOURNAL else socket_path(syslog)
    if path is None:
        return f"nothing is logged: no syslog daemon listens on {syslog}; start one, or etherws with --foreground"
    if os.path.realpath(path).startswith(_JOURNAL):
        return "its log: journalctl -t etherws -f"
    if files := [file for file in _FILES if os.path.isfile(file)]:
        # Another daemon may have left its file behind.
        return f"its log: grep etherws {max(files, key=os.path.getmtime)}"
    return f"its log: the lines of etherws in what the program at {path} writes"


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        # A stream socket is not tried further: its program would see a connection that says nothing.
        return sock.connect_ex(path) in (0, errno.EPROTOTYPE)
