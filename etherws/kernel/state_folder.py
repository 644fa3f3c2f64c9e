"""The folder where etherws keeps what is to be the same after a restart: small files of JSON.

What cannot be read or written costs one line of the log, and nothing else: a container may be read-only, and somebody
else's file is not believed. A state that is open in a process is something else: state_file.py. Read next: mac.py,
which has a file here. Sources: systemd.exec(5), "StateDirectory="; XDG Base Directory Specification.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from etherws.small_files import read_file

log = logging.getLogger(__name__)

#: Bytes of a file here at most: a hundred are usual.
SIZE_MAX = 4096

#: The version of these files. It is raised only when an older etherws must not use them.
VERSION = 1

#: Where it is for root.
ROOT_FOLDER = "/var/lib/etherws"


class StateFolder:
    """One folder, or none."""

    def __init__(self, path: str | None, environ: Mapping[str, str] = os.environ) -> None:
        """`path` is absolute; empty for no folder, None for the usual one. It is made when there is something to
        keep."""
        self.path = default(environ, os.geteuid()) if path is None else path
        # The user who has named it wants to know.
        self._level = logging.INFO if path is None else logging.WARNING
        #: Names of files that a newer version has made.
        self._newer: set[str] = set()

    def read(self, name: str) -> dict[str, Any] | None:
        """What is kept under this name; None if there is nothing of use, which the log says if it is not missing."""
        if not self.path:
            return None
        path = os.path.join(self.path, name)
        try:
            data = read_file(path, SIZE_MAX + 1, owners={0, os.geteuid()})
        except FileNotFoundError:
            return None
        except OSError as exc:
            log.log(self._level, "%s is not used: %s", path, exc.strerror)
            return None
        if len(data) > SIZE_MAX:
            log.warning("%s is not used: it is longer than %d bytes; remove it", path, SIZE_MAX)
            return None
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        version = found.get("version") if isinstance(found, dict) else None
        if not isinstance(version, int):
            log.warning("%s is not used: it is damaged; a new one is made", path)
            return None
        if version > VERSION:
            # That version finds its file again, when it is back.
            self._newer.add(name)
            log.warning("%s is not used: a newer version of etherws has made it; it is left as it is", path)
            return None
        return dict(found)

    def write(self, name: str, what: Mapping[str, Any]) -> None:
        """Keep this under the name, whole or not at all. What cannot be kept is a line of the log."""
        if not self.path or name in self._newer:
            return
        path = os.path.join(self.path, name)
        try:
            os.makedirs(self.path, mode=0o755, exist_ok=True)
            _replace(path, json.dumps({"version": VERSION, **what}).encode() + b"\n")
        except OSError as exc:
            log.log(
                self._level,
                "%s cannot be kept: %s; what is in it is derived again at each start (see --state-dir)",
                path,
                exc.strerror,
            )


def default(environ: Mapping[str, str], user: int) -> str:
    """The usual folder of this user: systemd's, root's, or one's own; empty if there is none."""
    # There may be several, with colons between.
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if os.path.isabs(given):
        return given
    if user == 0:
        return ROOT_FOLDER
    home = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(environ.get("HOME", ""), ".local/state")
    return os.path.join(home, "etherws") if os.path.isabs(home) else ""


def _replace(path: str, data: bytes) -> None:
    """Put the data in the place of the file. Raises OSError."""
    new = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    # Not what somebody else puts there meanwhile.
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(file, "wb") as opened:
        opened.write(data)
        opened.flush()
        # Without this a power failure may leave an empty file under the right name.
        os.fsync(file)
    os.replace(new, path)
