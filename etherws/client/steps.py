"""Who is told of each step of an attempt to connect, as it happens. The client needs nobody; the doctor does.

Read next: attempt.py, which tells; check/path/trace.py, which remembers.
"""

from __future__ import annotations

from etherws.client.http_answer import HttpAnswer
from etherws.client.upgrade import Agreement
from etherws.tunnel.tls import TlsStream


class Steps:
    """Takes no notice. A subclass may: its methods must not wait."""

    def tls(self, stream: TlsStream) -> None:
        """TLS with the server begins on `stream`. It knows what the server has shown, also after it has failed."""

    def answered(self, answer: HttpAnswer, body: bytes) -> None:
        """The server has answered the upgrade request; `body` is the beginning of what an answer other than 101 has."""

    def agreed(self, agreement: Agreement) -> None:
        """The answer was a proper 101."""
