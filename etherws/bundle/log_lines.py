"""The last lines of etherws's log: from the journal if there is one, else from syslog's file.

Nothing waits long: the journal's own program has ten seconds. Read next: archive.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

#: Lines that are taken, and bytes of a file's end in which they are looked for.
LINES_MAX, TAIL = 2000, 8 << 20

#: Bytes that are taken.
SIZE_MAX = 1 << 20

#: Seconds for the journal.
TIMEOUT = 10.0

#: Where syslog daemons write: Debian, and Red Hat and BusyBox.
FILES = (Path("/var/log/syslog"), Path("/var/log/messages"))

#: By its name in the journal, or by the name of its program.
_JOURNAL = [
    *("journalctl", "--no-pager", "--quiet", f"--lines={LINES_MAX}", "--output=short-iso"),
    *("SYSLOG_IDENTIFIER=etherws", "+", "_COMM=etherws"),
]


def log_lines(files: tuple[Path, ...] = FILES) -> str:
    """The last lines; if there are none, a line that says why."""
    return _journal() or _syslog(files) or "no log of etherws was found, or this user may not read it\n"


def _journal() -> str:
    if not shutil.which("journalctl"):
        return ""
    try:
        done = subprocess.run(
            _JOURNAL, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False, close_fds=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return _last(done.stdout)


def _syslog(files: tuple[Path, ...]) -> str:
    for path in files:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        with open(fd, "rb") as file:
            if not file.seekable():
                continue
            file.seek(max(0, os.fstat(fd).st_size - TAIL))
            lines = [line for line in file.read(TAIL).splitlines(keepends=True) if b"etherws" in line]
        if lines:
            return _last(b"".join(lines[-LINES_MAX:]))
    return ""


def _last(data: bytes) -> str:
    data = data[-SIZE_MAX:]
    return data.decode(errors="backslashreplace")
