"""A process that this one has started: `python -m` a module of ours, with descriptors, and the moment of its end.

It is executed anew and never forked: a fork of a process with an event loop has its timers, sockets and greenlets.
Read next: supervisor.py, which has workers; gunicorn/find_port_process.py, which starts another one in its own way.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

import etherws

DEVNULL = subprocess.DEVNULL

#: What tells a process of its own place beside systemd, and must not be taken for its own by another.
_OF_PARENT = {
    *("NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_USEC"),
    *("WATCHDOG_PID", "FDSTORE", "ETHERWS_HANDOVER", "ETHERWS_HELPER"),
}

#: PR_SET_PDEATHSIG of linux/prctl.h.
_PR_SET_PDEATHSIG = 1


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours."""
    return [sys.executable, "-m", f"etherws.{module}", *arguments]


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for that command: it finds the same etherws, and nothing of systemd's."""
    found = {name: value for name, value in environ.items() if name not in _OF_PARENT}
    root = str(Path(etherws.__file__).resolve().parent.parent)
    # Python was started in the checkout, by -m. By now the working folder may be another one.
    if sys.path and os.path.realpath(sys.path[0]) == root:
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (root, found.get("PYTHONPATH"))))
    return found


class Child:
    """One process, until its end was seen."""

    def __init__(self, argv: Sequence[str], descriptors: Sequence[int], **options: Any) -> None:
        """Start it; it inherits these descriptors by their numbers. `options` are those of subprocess.Popen. Raises
        OSError."""
        self._process = subprocess.Popen(argv, pass_fds=descriptors, env=environment(), **options)
        self.pid = self._process.pid
        #: Set at its end.
        self.ended = Event()
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:
            self._process.kill()
            self._process.wait()
            raise
        self._watcher: Any = gevent.get_hub().loop.io(self._pidfd, 1)
        self._watcher.start(self._end)

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self, timeout: float) -> None:
        """End it whatever it does, and wait for that. The kernel takes a moment; longer than `timeout` seconds if the
        process waits for a device that does not answer."""
        self.signal(signal.SIGKILL)
        self.ended.wait(timeout)

    @property
    def end(self) -> str:
        """How it ended, in words."""
        status = self._process.returncode
        if status is None:
            return "it has not ended"
        if status >= 0:
            return f"it ended with status {status}"
        try:
            return f"it was ended by {signal.Signals(-status).name}"
        except ValueError:
            return f"it was ended by signal {-status}"

    def _end(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        self._process.wait()
        os.close(self._pidfd)
        self.ended.set()


def end_with_parent(parent: int, prctl: Callable[..., int] | None = None) -> bool:
    """Have this process killed when the one that started it ends. False if it has ended already."""
    # By the kernel: a worker that hangs does not see that its channel is closed.
    (prctl or ctypes.CDLL(None, use_errno=True).prctl)(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent
