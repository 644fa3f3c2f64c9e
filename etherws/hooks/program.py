"""One run of a program: with a clean environment, few rights, a limit of time, and its output in the log.

It is started without a shell, in a session of its own, so that it can be ended with all that it has started. gevent's
own subprocess module is not used: it takes the ends of all children of this process. Read next: queue.py, facts.py,
kernel/privileges.py. Sources: setsid(2), kill(2), pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Mapping
from time import monotonic
from typing import NamedTuple

import gevent
from gevent import socket

from etherws.errors import SettingsError, printable
from etherws.kernel import privileges
from etherws.small_files import changeable_by_all
from etherws.tap_settings import TapSettings

log = logging.getLogger(__name__)

#: Seconds that a program may take, and that it has for its end after SIGTERM. To look up a name that nobody answers for
#: takes 10.
TIMEOUT, GRACE = 30.0, 1.0

#: Lines of its output that the log gets, and bytes of each.
LINES_MAX, LINE_MAX = 50, 200

#: Bytes that are read at once, and seconds until the next ones once nothing of them is logged any more.
READ, PAUSE = 65_536, 0.05


#: What to try if the kernel does not start a file that is there (execve(2)).
_HINTS = {
    errno.ENOEXEC: "; the first line of a script is #!/bin/sh or the like",
    errno.ENOENT: "; the program that the first line of the script names is not there",
    errno.EACCES: "; check who may run it, and whether its file system is mounted noexec",
}


class Rights(NamedTuple):
    """What programs may do: as which user and group they run, None for etherws's own, and with which capabilities."""

    user: tuple[int, int] | None = None
    capabilities: tuple[int, ...] = ()

    def take(self) -> None:
        """Called in the new process, before the program. Raises OSError."""
        if self.user and self.user[0] != os.geteuid():
            privileges.become(*self.user)
        privileges.pass_on(self.capabilities)


def check(option: str, path: str) -> None:
    """Raise SettingsError unless the file at `path` is a program that only its owner and group can change."""
    try:
        mode = os.stat(path).st_mode
    except OSError as exc:
        raise SettingsError(f"{option} {path}: {exc.strerror}; name a program by its whole path") from None
    if stat.S_ISDIR(mode):
        raise SettingsError(f"{option} {path} is a folder; name a program in it")
    if not stat.S_ISREG(mode) or not mode & 0o111:
        raise SettingsError(f"{option} {path} is not a program; chmod +x makes a script one")
    if open_ := changeable_by_all(path):
        raise SettingsError(f"{option} {path}: every user of this machine can change it; chmod o-w {open_}")


def check_all(settings: TapSettings) -> None:
    """As check(), of all programs of the settings."""
    for name, path in settings.programs().items():
        check(f"--{name}", path)


def run(path: str, what: str, environ: Mapping[bytes, bytes], rights: Rights, timeout: Callable[[], float]) -> None:
    """Run the program at `path` to its end, and no longer than until `timeout`, by monotonic(). `what` names the run in
    the log. Blocks this greenlet."""
    try:
        check(what, path)
        process = subprocess.Popen(
            [path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd="/",
            start_new_session=True,
            # As cli/process/privileged_helper.py: it logs nothing, and uses no thread.
            preexec_fn=rights.take,
        )
    except (OSError, SettingsError, subprocess.SubprocessError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        why += _HINTS.get(getattr(exc, "errno", None) or 0, "")
        log.error("%s: cannot run %s: %s", what, printable(path), printable(why))
        return
    assert process.stdout
    with process.stdout:
        output = _Output(what, process.stdout.fileno())
        reader = gevent.spawn(output.read)
        why = ""
        try:
            if not _wait(process, timeout):
                why = "did not end in time"
        except OSError as exc:
            # No descriptor is left, for instance.
            why = f"cannot be waited for: {exc.strerror}"
        finally:
            _kill(process)
            # What it has written before its end. What it has left in the background may have the pipe for longer.
            reader.join(GRACE if reader else 0)
            reader.kill()
            output.end()
    if process.returncode is None:
        words = "it waits in the kernel, for a disk or a lock. etherws goes on without it"
        log.error("%s: %s %s, and does not end by SIGKILL either: %s", what, printable(path), why, words)
    elif why:
        log.error("%s: %s %s, and was ended with all that it had started", what, printable(path), why)
    elif process.returncode:
        log.warning("%s: %s ended with status %d", what, printable(path), process.returncode)


def _wait(process: subprocess.Popen[bytes], timeout: Callable[[], float]) -> bool:
    """Wait for its end; False if that does not come in time. Then it is told to end."""
    pidfd = os.pidfd_open(process.pid)
    try:
        while (left := timeout() - monotonic()) > 0:
            # The limit may come nearer meanwhile.
            gevent.with_timeout(min(left, 0.5), socket.wait_read, pidfd, timeout_value=None)
            if process.poll() is not None:
                return True
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGTERM)
        gevent.with_timeout(GRACE, socket.wait_read, pidfd, timeout_value=None)
        return False
    finally:
        os.close(pidfd)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it, and all that it has started, if it runs still or was told to end. Waits for GRACE at most: a process that
    waits in the kernel for a disk that does not answer has no end."""
    if process.returncode is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        gevent.spawn(_reap, process).join(GRACE)


def _reap(process: subprocess.Popen[bytes]) -> None:
    pause = 0.001
    while process.poll() is None:
        gevent.sleep(pause)
        pause = min(2 * pause, 1.0)


class _Output:
    """What a program writes: its first lines go to the log, the others are counted."""

    def __init__(self, what: str, descriptor: int) -> None:
        self._what, self._descriptor = what, descriptor
        self._lines, self._more, self._rest = 0, 0, b""
        os.set_blocking(descriptor, False)

    def read(self) -> None:
        """Read to the end."""
        while True:
            socket.wait_read(self._descriptor)
            try:
                data = os.read(self._descriptor, READ)
            except BlockingIOError:
                continue
            if not data:
                return
            *lines, rest = (self._rest + data).split(b"\n")
            # Of a line without end the begin is kept.
            self._rest = rest[: LINE_MAX + 1]
            for line in lines:
                self._log(line)
            if self._more or len(self._rest) > LINE_MAX:
                gevent.sleep(PAUSE)

    def end(self) -> None:
        """It writes no more."""
        if self._rest:
            self._log(self._rest)
        if self._more:
            log.info("%s: %d more lines were left out", self._what, self._more)

    def _log(self, line: bytes) -> None:
        if self._lines >= LINES_MAX:
            self._more += 1
            return
        self._lines += 1
        log.info("%s: %s", self._what, printable(line[:LINE_MAX].decode(errors="replace")))
