"""Read the head of an HTTP/1 answer: a server's answer to the upgrade request, or a proxy's answer to CONNECT.

Pure: the bytes come from a function that the caller passes in. Bodies are not read. Used by attempt.py and proxies.py.
Source: RFC 9112, sections 2 to 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from etherws.errors import ConnectError

#: Bytes of an answer's head: status line and headers. Servers and proxies allow 8 KiB to 16 KiB in requests.
HEAD_MAX = 16 * 1024

#: Bytes to ask for at once where data behind the head may be read too: a usual answer is shorter.
CHUNK_BYTES = 4096

_END = b"\r\n\r\n"

#: RFC 9112, section 4. The reason phrase is optional, and so is the space before it with some servers.
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r|\Z)")


@dataclass(frozen=True)
class HttpAnswer:
    """The head of an answer, without its blank line, and the bytes behind it that were read as well."""

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

    def values(self, name: str) -> list[str]:
        """The values of all headers of this name, in their order. Bytes that are not UTF-8 become surrogates."""
        lines = self.head.decode(errors="surrogateescape").split("\r\n")
        fields = [line.partition(":") for line in lines[1:]]
        return [value.strip() for found, _, value in fields if found.lower() == name.lower()]


def read_answer(receive: Callable[[int], bytes], *, hint: str, exact: bool) -> HttpAnswer:
    """Read up to the end of the head.

    `receive` returns up to as many bytes as it is asked for, and none at the end of the connection. With `exact` not a
    byte behind the head is read: it belongs to the next user of the connection. `hint` ends the error messages.

    Raises ConnectError if the head does not end, or is longer than HEAD_MAX.
    """
    data, end = bytearray(), -1
    while end < 0:
        if len(data) >= HEAD_MAX:
            raise ConnectError(f"answered with headers of over {HEAD_MAX} bytes; {hint}")
        received = receive(1 if exact else CHUNK_BYTES)
        if not received:
            raise ConnectError(f"ended the connection without an answer; {hint}")
        # The end may have begun with the last bytes of before.
        searched = max(0, len(data) - len(_END) + 1)
        data += received
        end = data.find(_END, searched)
    return HttpAnswer(bytes(data[:end]), bytes(data[end + len(_END) :]))
