"""A worker of gunicorn finds the port process, and starts it if there is none.

That process is nobody's child, so that it outlives the worker that started it, gunicorn's reload (HUP) and its upgrade
(USR2). Of several workers that come at once, the one that gets the name starts it. Read next: hello.py,
port_process.py.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from etherws import __version__
from etherws.errors import WorkerError
from etherws.gunicorn import hello
from etherws.settings import ServerSettings
from etherws.workers.child import command, environment
from etherws.workers.datagrams import descriptors

#: Seconds for the start of the port process, on a busy machine; with some for those before it to end.
START_TIMEOUT = 30.0

#: Seconds between two attempts.
PAUSE = 0.05


class Refusal(NamedTuple):
    """Why there are no ports for this worker, and for how many seconds it is worth to try again."""

    reason: str
    wait: float


class Launcher:
    """The process that is to have the ports, before it knows which. It ends if it is not needed."""

    def __init__(self) -> None:
        """Start it. Raises OSError."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            os.set_inheritable(its.fileno(), True)
            # subprocess is patched under gunicorn, and would have its own use for SIGCHLD. The process leaves at once
            # one of its own behind, and closes all else that it inherits.
            argv = command("gunicorn.port_process", str(its.fileno()))
            pid = os.posix_spawn(sys.executable, argv, environment())
        self._control = ours
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    def begin(self, listener: socket.socket, master: int) -> None:
        """It is needed: `listener` has the name, and `master` has started this worker. Raises OSError."""
        # The user that this process has become, if gunicorn has set one: its workers may connect.
        socket.send_fds(self._control, [f"{os.geteuid()} {master}".encode()], [listener.fileno()])
        self._control.close()

    def cancel(self) -> None:
        """It is not needed."""
        self._control.close()


def find(
    settings: ServerSettings,
    masters: tuple[int, ...],
    launcher: Launcher | None = None,
    *,
    listen: str = "",
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> tuple[socket.socket, int]:
    """A connection to the port process for these settings, and the descriptor of the table of loads.

    `masters` are the processes that start workers such as this one: hello.py. `launcher` was made while this process
    still had the rights to make interfaces; by default one is made when it is needed. `listen` is as in hello.Hello.
    Raises WorkerError.
    """
    name = hello.socket_name(settings.device)
    level = logging.getLogger("etherws").getEffectiveLevel()
    message = hello.Hello(__version__, masters, settings, level, listen)
    began = clock()
    try:
        while True:
            try:
                answer = _ask(name, message)
            except (ConnectionError, TimeoutError):
                answer = Refusal("the port process does not start; the log says why", START_TIMEOUT)
                if _take_name(name, launcher, masters[0]):
                    launcher = None
            if not isinstance(answer, Refusal):
                return answer
            if clock() - began > answer.wait:
                raise WorkerError(answer.reason)
            sleep(PAUSE)
    except OSError as exc:
        raise WorkerError(f"cannot reach the port process: {exc.strerror or exc}") from exc
    finally:
        if launcher is not None:
            launcher.cancel()


def _take_name(name: str, launcher: Launcher | None, master: int) -> bool:
    """Have the process started, if nobody has the name. Return whether that was done. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            listener.bind(name)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
            return False
        listener.listen(socket.SOMAXCONN)
        (launcher or Launcher()).begin(listener, master)
    return True


def _ask(name: str, message: hello.Hello) -> Refusal | tuple[socket.socket, int]:
    """The connection with the table, or why there is none. Raises OSError, WorkerError."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        sock.settimeout(START_TIMEOUT)
        sock.connect(name)
        if (uid := hello.peer_of(sock).uid) not in (0, os.geteuid()):
            raise WorkerError(
                f"user {uid} has taken the name by which workers find their ports, @{name[1:]}; end that program"
            )
        sock.sendall(message.encode())
        data, beside, _, _ = sock.recvmsg(hello.SIZE_MAX, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "it has just ended")
        reason, wait = hello.read_answer(data)
        fds = descriptors(beside)
        if reason or not fds:
            return Refusal(reason or "the port process gave nothing", wait)
        stack.pop_all()
        return sock, fds[0]
