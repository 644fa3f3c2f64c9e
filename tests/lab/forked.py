"""Starts ``etherws`` by a fork of a process that has imported it already: 0.1 s of a processor's time in place of 0.4.

For tests in which a start is only what comes before: the fixture ``forks_etherws`` of tests/conftest.py. How Python
starts, the command line as others see it, and what a process leaves to its next image are tested with processes of
their own. A Start looks like a subprocess.Popen to its user, tests/lab/hosts.py. Run as a program, this is the process
that forks.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import IO, Any

from etherws.kernel.netns import CLONE_NEWNET

#: Bytes of one message: arguments and an environment.
MESSAGE = 1 << 18


#: What starts the processes of the test that runs, if not each by itself.
current: Starter | None = None


class Starter:
    """The process that forks, and the way to it. There is one in each worker of pytest, from its first use on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # What it has imported is what every start gets; its environment is replaced at each.
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "tests.lab.forked", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"},
            )

    def ask(self, message: Mapping[str, Any], descriptors: list[int]) -> int:
        """Send a message; return the number that is answered."""
        with self._lock:
            if not self._process:
                self._start()
            socket.send_fds(self._socket, [json.dumps(message).encode()], descriptors)
            answer = self._socket.recv(100)
        assert answer, "the process that forks has ended"
        return int(answer)

    def close(self) -> None:
        """End the process. What it has forked goes on."""
        if self._process:
            self._socket.close()
            self._process.wait()


class Start:
    """A process of etherws, as a subprocess.Popen."""

    def __init__(self, starter: Starter, arguments: list[str], env: dict[str, str], namespace: int | None) -> None:
        """`namespace` is the descriptor of a network namespace; None for that of this process."""
        self._starter = starter
        self.returncode: int | None = None
        reading, writing = os.pipe()
        try:
            message = {"start": arguments, "env": env, "folder": os.getcwd()}
            self.pid = starter.ask(message, [writing, *([] if namespace is None else [namespace])])
        finally:
            os.close(writing)
        self._pidfd = os.pidfd_open(self.pid)
        self.stdout: IO[str] = open(reading, encoding="utf-8")  # noqa: SIM115

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status once it has ended. Raises subprocess.TimeoutExpired."""
        status = self._ended(None if timeout is None else 1000 * timeout)
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("etherws", timeout)
        return status

    def _ended(self, milliseconds: float | None) -> int | None:
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if poll.poll(milliseconds):
                self.returncode = self._starter.ask({"end": self.pid}, [])
                os.close(self._pidfd)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _serve(control: socket.socket) -> list[str]:
    """Fork at each message that says so, and return in each child, with etherws's arguments. Does not return in this
    process, which ends with the other side."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, MESSAGE, 2)
        if not data:
            os._exit(0)
        message = json.loads(data)
        if "end" in message:
            _, status = os.waitpid(message["end"], 0)
            control.send(str(os.waitstatus_to_exitcode(status)).encode())
        elif child := os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            control.send(str(child).encode())
        else:
            control.close()
            _become(message, *descriptors)
            return list(message["start"])


def _become(message: dict[str, Any], output: int, namespace: int | None = None) -> None:
    """Be as a new process is."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    if namespace is not None:
        # os.setns() comes only with Python 3.12.
        assert ctypes.CDLL(None).setns(namespace, CLONE_NEWNET) == 0
        os.close(namespace)
    os.chdir(message["folder"])
    os.environ.clear()
    os.environ.update(message["env"])
    sys.argv = [sys.argv[0], *message["start"]]
    sys.orig_argv = [sys.executable, "-m", "etherws", *message["start"]]


def _imported() -> Any:
    """Import what a server and a client import; return the command."""
    from etherws.cli import main, observing  # noqa: F401
    from etherws.client import attempt, kept_port, observed, reconnect  # noqa: F401
    from etherws.server import application, kept_ports, serve  # noqa: F401
    from etherws.workers import parent  # noqa: F401

    # The children do not look through it again, which would copy its memory.
    gc.collect()
    gc.freeze()
    return main


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    command = _imported()
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        given = _serve(listening)
    command(given, prog_name="etherws")
