"""Asks a running server or client by its control socket: HTTP on a UNIX socket, in blocking calls with time limits.

What answers may be hung, foreign or hostile: each answer is bounded in bytes and in time. Read next: instances.py,
which finds the sockets; observe/application.py, which answers; docs/status.rst, what it says.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pwd
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from typing import Any

from etherws.cli.operate.cells import shown
from etherws.counters import Values
from etherws.errors import ControlError, NoAnswer, NotAllowed, NotRunning

#: Seconds to wait for the next bytes, and for a whole answer: a server with a thousand clients needs less than one.
TIMEOUT, TIMEOUT_TOTAL = 5.0, 20.0

#: Seconds without a byte from a process whose events are followed. It sends something each 15 s (observe/events.py).
SILENCE = 40.0

#: Bytes of an answer: a thousand sessions have two million. And of one event.
ANSWER_MAX, LINE_MAX = 256 << 20, 1 << 20

#: Bytes that are read at once.
ANSWER_PART = 1 << 16

#: Characters of a refusal that are shown.
REFUSAL_MAX = 1000

#: struct ucred of socket(7), SO_PEERCRED: of a listening socket, who has called listen(2).
_UCRED = struct.Struct("iII")

#: struct timeval of socket(7), SO_SNDTIMEO.
_TIMEVAL = struct.Struct("ll")


class Control:
    """One control socket. `name` is the instance's, for messages."""

    def __init__(self, path: str, name: str = "") -> None:
        self.path, self.name = path, name or path

    def get(self, path: str) -> Values:
        """What it says at a path such as /status. Raises ControlError."""
        return self._ask("GET", path, None)

    def post(self, path: str, **values: object) -> Values:
        """Have it do something; return what it says to that. Raises ControlError."""
        return self._ask("POST", path, json.dumps(values).encode())

    def follow(self, number: int) -> Iterator[Values | None]:
        """The events of this number and above, each as it comes, without end; None as often as there is none. Raises
        ControlError when the process ends, or answers no more."""
        with self._errors(SILENCE), self._request("GET", f"/events?follow=1&since={number}", timeout=SILENCE) as answer:
            if answer.status != 200:
                raise ControlError(_refusal(answer, answer.read1(ANSWER_PART)))
            while line := self._line(answer):
                if line.startswith(b"data:"):
                    yield self._object(line[5:])
                elif line == b":\n":
                    yield None
        raise NotRunning(f"{self.name} has ended")

    def process(self) -> int:
        """The ID of the process that listens. Raises ControlError."""
        with contextlib.closing(self._connected(TIMEOUT)) as sock:
            return int(_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0])

    def _ask(self, method: str, path: str, body: bytes | None) -> Values:
        data = bytearray()
        with self._errors(TIMEOUT), self._request(method, path, body, timeout=TIMEOUT, total=TIMEOUT_TOTAL) as answer:
            while piece := answer.read1(ANSWER_PART):
                data += piece
                if len(data) > ANSWER_MAX:
                    raise ControlError(f"{self.name}: its answer is endless; is {self.path} a socket of etherws?")
            if answer.length:
                raise http.client.IncompleteRead(b"")
            if answer.status != 200:
                raise ControlError(_refusal(answer, bytes(data)))
        return self._object(bytes(data))

    @contextlib.contextmanager
    def _request(
        self, method: str, path: str, body: bytes | None = None, *, timeout: float, total: float | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request; the answer, up to its body. The next bytes of it have `timeout` seconds, all of it `total`.
        Raises ControlError, and as _errors() has them."""
        connection = http.client.HTTPConnection("localhost")
        with contextlib.closing(connection):
            sock = connection.sock = self._connected(timeout)
            over = threading.Event()

            def end() -> None:
                over.set()
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

            timer = threading.Timer(total or 0, end)
            if total:
                timer.start()
            try:
                connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
                with connection.getresponse() as answer:
                    yield answer
            except (OSError, http.client.HTTPException):
                if over.is_set():
                    raise NoAnswer(self._no_answer(total or 0)) from None
                raise
            finally:
                timer.cancel()

    def _connected(self, timeout: float) -> socket.socket:
        """A socket that is connected. Raises ControlError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Python's own timeout would not wait for room in the queue of connections.
            seconds, rest = divmod(min(timeout, TIMEOUT), 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(seconds), int(rest * 1e6)))
            sock.connect(self.path)
            sock.settimeout(timeout)
        except PermissionError as exc:
            sock.close()
            raise NotAllowed(f"{self.name}: {self._who_may()} may ask it; try sudo ({self.path})") from exc
        except ConnectionRefusedError as exc:
            sock.close()
            if not _is_socket(self.path):
                raise ControlError(f"{self.path} is not a socket; name the file that --control has there") from exc
            raise NotRunning(
                f"{self._gone()}: nobody listens at {self.path}, which a process that was killed has left"
            ) from exc
        except FileNotFoundError as exc:
            sock.close()
            raise NotRunning(f"{self._gone()}: there is no {self.path}") from exc
        except BlockingIOError as exc:
            sock.close()
            raise NoAnswer(f"{self.name} takes no connection within {TIMEOUT:g} s: it hangs, or is stopped") from exc
        except OSError as exc:
            # Such as a path that is too long, or no socket.
            sock.close()
            raise ControlError(f"cannot ask {self.path}: {exc.strerror or exc}") from exc
        return sock

    @contextlib.contextmanager
    def _errors(self, timeout: float) -> Iterator[None]:
        """Have errors of HTTP and of the socket become ours."""
        try:
            yield
        except TimeoutError as exc:
            raise NoAnswer(self._no_answer(timeout)) from exc
        except (ConnectionError, http.client.RemoteDisconnected, http.client.IncompleteRead) as exc:
            raise NotRunning(f"{self.name} has ended without an answer") from exc
        except (http.client.HTTPException, OSError, ValueError) as exc:
            raise ControlError(f"what listens at {self.path} is not etherws: {shown(exc)}") from exc

    def _line(self, answer: http.client.HTTPResponse) -> bytes:
        line = answer.readline(LINE_MAX)
        if len(line) >= LINE_MAX:
            raise ControlError(f"{self.name}: an event is too long; is {self.path} a socket of etherws?")
        return line

    def _object(self, data: bytes) -> Values:
        try:
            found: Any = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ControlError(f"what listens at {self.path} gave no whole answer: it has ended, or is not etherws")
        return found

    def _no_answer(self, seconds: float) -> str:
        process = ""
        with contextlib.suppress(ControlError, OSError):
            process = f" (process {self.process()})"
        return f"{self.name} does not answer within {seconds:g} s{process}: it hangs, or is stopped; see its log"

    def _gone(self) -> str:
        """What is said if nobody listens, with the name if there is one besides the path."""
        return "nothing runs" if self.name == self.path else f"{self.name} does not run"

    def _who_may(self) -> str:
        """Who may open the socket, for a message."""
        try:
            owner = os.stat(self.path).st_uid
        except OSError:
            return "only root"
        if owner == 0:
            return "only root"
        try:
            return f"only root and {pwd.getpwuid(owner).pw_name}"
        except KeyError:
            return f"only root and the user {owner}"


def _is_socket(path: str) -> bool:
    """Whether a file is a socket; also if that cannot be seen any more."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return True


def _refusal(answer: http.client.HTTPResponse, data: bytes) -> str:
    """What an answer says that is no 200."""
    text = data.decode(errors="replace").strip()
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        text = str(json.loads(data)["error"])
    return shown(text or f"it answers {answer.status} {answer.reason}", REFUSAL_MAX)
