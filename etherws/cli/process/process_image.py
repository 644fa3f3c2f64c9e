"""The image of this process: how it was started, what the image before it has left, and how to start the next one.

After SIGUSR2 a process executes a new image of itself (handover.py). What the next one needs and cannot find elsewhere
is in a state file in the store: the arguments with their secrets, which must not be on a command line again, passwords
that were typed, and the mode. Read next: handover.py, rehearsal.py, kernel/store.py.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from etherws import __version__
from etherws.errors import DaemonError
from etherws.kernel import packet_sockets, store
from etherws.kernel.state_file import StateFile

#: The names of what one image leaves to the next in addition to what the service keeps.
STATE, PID_FILE, PACKET_SOCKETS = "image", "pidfile", "packet-sockets"

#: The first argument of a rehearsal, behind the command's. A version that knows no rehearsals refuses it, and does not
#: run for real.
REHEARSAL = "--rehearsal"

#: A link to the command of the next image. If there is none, the next image is what was started. A link has no format,
#: and "ln -sfn" replaces it in one step. Another place can be named in the environment.
NEXT, NEXT_VARIABLE = "/run/etherws/next", "ETHERWS_NEXT"


class ProcessImage:
    """This one. There is one for each process: see begin()."""

    def __init__(self, arguments: Sequence[str], environ: MutableMapping[str, str]) -> None:
        """`arguments` are those of the command line, without the command. Takes what was left out of `environ`."""
        self.store = store.from_environ(environ)
        self._left = _read(self.store)
        # Who has given up privileges cannot make them again.
        if sockets := self.store.take(PACKET_SOCKETS):
            packet_sockets.adopt(sockets)
        #: The version of the image before; empty if there was none.
        self.before = str(self._left.get("version", ""))
        #: Whether this process is to end as soon as it is clear that it could go on.
        self.rehearsing = REHEARSAL in arguments or bool(self._left.get("rehearsal"))
        #: Whether the image before ran in the background; then this one is there already.
        self.background = bool(self._left.get("background"))
        given = [argument for argument in arguments if argument != REHEARSAL]
        told = self._left.get("arguments")
        #: With their secrets.
        self.arguments: list[str] = told if told and given == self._left.get("visible") else given
        #: The same without secrets: what a command line may show.
        self.visible = given
        #: Where it was started.
        self.folder = _folder()
        #: Has the store keep all as it is now.
        self.before_rehearsal: Callable[[], None] = lambda: None
        self._typed: list[list[str]] = list(self._left.get("typed", ()))
        self._asked = list(self._typed)
        self._link = environ.get(NEXT_VARIABLE) or NEXT
        # The interpreter with its options, and the script or module, if this is the process's own command line.
        own = len(sys.orig_argv) - len(arguments)
        self._command = sys.orig_argv[:own] if sys.orig_argv[own:] == list(arguments) else []

    def typed(self, user: str) -> str | None:
        """The password that was typed for the user at the start of an image before this one; None if none was."""
        for pair in self._asked:
            if pair[0] == user:
                self._asked.remove(pair)
                return pair[1]
        return None

    def note_typed(self, user: str, password: str) -> None:
        """The password was typed now: no image after this one needs to ask again."""
        self._typed.append([user, password])

    def take_pid_file(self) -> int | None:
        """The descriptor of the PID file that the image before had; None if it had none."""
        return next(iter(self.store.take(PID_FILE)), None)

    def state(self, *, background: bool, rehearsal: bool) -> StateFile:
        """What the next image is to know, in a new file, which the caller closes."""
        file = StateFile()
        file.write(
            {
                "version": __version__,
                "rehearsal": rehearsal,
                "background": background,
                "arguments": self.arguments,
                "visible": self.visible,
                "typed": self._typed,
            }
        )
        return file

    def next_command(self) -> list[str]:
        """The command of the next image, without arguments: the one that the link names, or the one that was started,
        by the path as typed, so that a link on it is followed to a new version. Raises DaemonError if there is none."""
        if linked := _linked(self._link):
            return [linked]
        command = self._command
        script = os.path.join(self.folder, command[1]) if len(command) == 2 else ""
        # It is executed itself: its first line may name another interpreter now.
        if script and _is_program(script):
            return [script]
        if command and (not script or os.path.exists(script)) and _is_program(sys.executable):
            return [sys.executable, *command[1:]]
        if found := shutil.which("etherws"):
            return [found]
        raise DaemonError(
            f"the command that was started does not exist any more, nor is there etherws in PATH; link {self._link} to"
            " the new one"
        )


_this: ProcessImage | None = None


def begin(arguments: Sequence[str], environ: MutableMapping[str, str]) -> ProcessImage:
    """Make the image of this process."""
    global _this
    _this = ProcessImage(arguments, environ)
    return _this


def this() -> ProcessImage:
    """The image of this process."""
    assert _this is not None
    return _this


def _read(kept: store.Store) -> dict[str, Any]:
    """What the image before has left; empty if there was none."""
    for descriptor in kept.take(STATE):
        try:
            file = StateFile(descriptor)
        except (OSError, ValueError):
            os.close(descriptor)
            continue
        state = file.read()
        file.close()
        return state or {}
    return {}


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"


def _linked(link: str) -> str:
    """The program that the link names; empty if there is no link. Raises DaemonError if it is not safe to follow."""
    try:
        target = os.path.join(os.path.dirname(link), os.readlink(link))
        owners = {os.lstat(link).st_uid, (folder := os.stat(os.path.dirname(link))).st_uid}
    except FileNotFoundError:
        return ""
    except OSError as exc:
        raise DaemonError(f"cannot follow the link {link}: {exc.strerror}; make it by ln -sfn") from exc
    if owners - {0, os.geteuid()} or folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise DaemonError(f"the link {link} is not used: other users may change it; give it and its folder to root")
    if not _is_program(target):
        raise DaemonError(f"the link {link} leads to {target}, which is no program; correct it, or remove it")
    return target


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)
