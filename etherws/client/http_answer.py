"""Read an HTTP/1 answer: a server's answer to the upgrade request, or a proxy's answer to CONNECT.

Pure: the bytes come from a function that the caller passes in. A head is read by read_answer(), and what an error says
in its body by Body. Read next: answer_text.py, which finds the words in a body; upgrade.py and proxies.py, the callers.
Source: RFC 9112, sections 2 to 7.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from etherws.errors import ConnectError

#: Bytes of an answer's head: status line and headers, with the interim answers before it. Servers and proxies allow
#: 8 KiB to 16 KiB in requests.
HEAD_MAX = 16 * 1024

#: Interim answers before the final one. Servers send one or two: 100 and 103.
INTERIM_MAX = 8

#: Bytes to ask for at once where data behind the head may be read too: a usual answer is shorter.
CHUNK_BYTES = 4096

#: Bytes of a body that are looked at: enough for an error page's title.
BODY_MAX = 4096

#: Bytes of the line before a chunk: its size, and extensions that nobody uses.
_CHUNK_LINE_MAX = 256

_END = b"\r\n\r\n"

#: How every answer of HTTP/1 begins.
_START = b"HTTP/"

#: RFC 9112, section 4. The reason phrase is optional, and so is the space before it with some servers.
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r|\Z)")

#: The line before a chunk, behind the end of the one before (RFC 9112, section 7.1).
_CHUNK_LINE = re.compile(rb"(?:\r\n)?([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\n]*)?\r\n")


@dataclass(frozen=True)
class HttpAnswer:
    """The head of an answer, without its blank line, and the bytes behind it that were read as well.

    If it is not HTTP/1: what was read of it, which may be its first bytes only.
    """

    head: bytes
    rest: bytes = b""

    @property
    def status(self) -> int | None:
        """The status code; None if this is not HTTP/1."""
        found = _STATUS_LINE.match(self.head)
        return int(found[1]) if found else None

    @property
    def status_text(self) -> str:
        """The status code with the standard's phrase, as in "404 Not Found". The peer's own phrase is not used: it may
        hold anything."""
        try:
            return f"{self.status} {HTTPStatus(self.status or 0).phrase}"
        except ValueError:
            return f"{self.status} unknown status"

    @property
    def interim(self) -> bool:
        """Whether the final answer is still to come (RFC 9110, section 15.2). A 101 is final: HTTP ends with it."""
        return self.status is not None and 100 <= self.status < 200 and self.status != 101

    def values(self, name: str) -> list[str]:
        """The values of all headers of this name, in their order. Bytes that are not UTF-8 become surrogates."""
        lines = self.head.decode(errors="surrogateescape").split("\r\n")
        fields = [line.partition(":") for line in lines[1:]]
        return [value.strip() for found, _, value in fields if found.lower() == name.lower()]

    def value(self, name: str) -> str:
        """The value of the first header of this name; empty if there is none."""
        return "".join(self.values(name)[:1])


def read_answer(receive: Callable[[int], bytes], *, hint: str, exact: bool) -> HttpAnswer:
    """Read up to the end of the head of the final answer. Interim answers before it, such as 100 Continue and 103 Early
    Hints, are left out. What cannot become HTTP is returned at once: the peer may be waiting for more from us.

    `receive` returns up to as many bytes as it is asked for, and none at the end of the connection. With `exact` not a
    byte behind the head is read: it belongs to the next user of the connection. `hint` ends the error messages.

    Raises ConnectError if the head does not end, or is longer than HEAD_MAX with all before it, or if there are more
    than INTERIM_MAX interim answers.
    """
    data, left = b"", HEAD_MAX
    for _ in range(INTERIM_MAX + 1):
        answer = _read_head(receive, data, left, hint, exact)
        if not answer.interim:
            return answer
        data, left = answer.rest, left - len(answer.head) - len(_END)
    raise ConnectError(f"answered with over {INTERIM_MAX} interim answers, such as 100 Continue; {hint}")


def _read_head(receive: Callable[[int], bytes], begun: bytes, left: int, hint: str, exact: bool) -> HttpAnswer:
    """One head of `left` bytes at most. `begun` was read before."""
    data, searched = bytearray(begun), 0
    while (end := data.find(_END, searched)) < 0:
        if not _START.startswith(data[: len(_START)]):
            # With `exact` the first byte is here alone. No more is needed of the connection, so read what it is.
            return HttpAnswer(bytes(data) + (receive(CHUNK_BYTES) if exact else b""))
        if len(data) >= left:
            raise ConnectError(f"answered with headers of over {HEAD_MAX} bytes; {hint}")
        # The end may have begun with the last bytes of before.
        searched = max(0, len(data) - len(_END) + 1)
        received = receive(1 if exact else CHUNK_BYTES)
        if not received:
            raise ConnectError(f"ended the connection without an answer; {hint}")
        data += received
    return HttpAnswer(bytes(data[:end]), bytes(data[end + len(_END) :]))


class Body:
    """The beginning of an answer's body: `data`, which holds BODY_MAX bytes at most. It grows by feed()."""

    def __init__(self, answer: HttpAnswer) -> None:
        """What was read behind the head is fed already."""
        self.data = bytearray()
        #: Whether no more is needed.
        self.over = answer.status in (204, 304)
        self._pending = bytearray()
        self._fed = 0
        self._chunked = answer.value("Transfer-Encoding").lower().endswith("chunked")
        length = answer.value("Content-Length")
        # Bytes that are left of the body, or of the present chunk. Without a length the body ends with the connection.
        self._left = 0 if self._chunked else int(length) if re.fullmatch("[0-9]{1,18}", length) else BODY_MAX
        self.feed(answer.rest)

    def feed(self, received: bytes) -> None:
        """Take what came next."""
        self._pending += received
        self._fed += len(received)
        while not self.over:
            if self._left:
                self._take()
            elif not self._chunked:
                self.over = True
            elif not self._next_chunk():
                break
            if not self._pending:
                break
        self.over = self.over or self._fed >= BODY_MAX

    def _take(self) -> None:
        """Move what is there of the body, or of the chunk, to `data`."""
        piece = self._pending[: self._left]
        del self._pending[: len(piece)]
        self._left -= len(piece)
        self.data += piece[: BODY_MAX - len(self.data)]
        self.over = not self._chunked and not self._left

    def _next_chunk(self) -> bool:
        """Begin with the next chunk, if the line before it is there. The last chunk, and what is no chunk, ends it."""
        line = _CHUNK_LINE.match(self._pending)
        if line:
            self._left = int(line[1], 16)
            del self._pending[: line.end()]
            self.over = not self._left
        else:
            self.over = len(self._pending) > _CHUNK_LINE_MAX or b"\n" in self._pending[2:]
        return bool(line)


def read_body(receive: Callable[[int], bytes], body: Body) -> None:
    """Read `body` until it needs no more, or until the peer ends the connection. May wait: set a limit of time."""
    while not body.over and (received := receive(CHUNK_BYTES)):
        body.feed(received)
