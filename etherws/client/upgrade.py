"""The client's side of the opening handshake: the upgrade request, and the check of the server's 101.

The rules of RFC 6455, section 4.1, are the websockets library's (its sans-I/O protocol). What another status than 101
means is said by attempt.py. Read next: attempt.py, and server/handshake.py, which is the other side.
"""

from __future__ import annotations

from collections.abc import Sequence

from websockets.client import ClientProtocol
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from etherws import __version__
from etherws.client.http_answer import HttpAnswer, read_answer
from etherws.errors import ConnectError, printable
from etherws.tunnel import wire
from etherws.tunnel.stream import Stream


class Upgrade:
    """One upgrade request, and what its answer means."""

    def __init__(self, uri: WebSocketURI, newest: int) -> None:
        """`newest` is the highest version of the wire to agree on."""
        self._newest = newest
        self._protocol = ClientProtocol(uri, subprotocols=[Subprotocol(name) for name in wire.offer(newest)])

    def ask(self, stream: Stream, own: Sequence[tuple[str, str]], users: Sequence[tuple[str, str]]) -> HttpAnswer:
        """Send the request and read the answer. The request has our `own` headers and the user's, who may replace ours.

        Raises ConnectError, and OSError as the stream does.
        """
        request = self._protocol.connect()
        request.headers["User-Agent"] = f"etherws/{__version__}"
        for name, value in own:
            request.headers[name] = value
        for name, _ in users:
            request.headers.pop(name, None)
        for name, value in users:
            request.headers[name] = value
        self._protocol.send_request(request)
        stream.sendall(b"".join(self._protocol.data_to_send()))
        return read_answer(stream.recv, hint="is that an etherws server?", exact=False)

    def agreed(self, answer: HttpAnswer) -> wire.Version1 | wire.Version2:
        """The version of the wire that this answer, a 101, agrees on. Raises ConnectError if it is not valid."""
        self._protocol.receive_data(answer.head + b"\r\n\r\n")
        if self._protocol.handshake_exc is not None:
            raise ConnectError(f"gave no valid answer to the upgrade: {printable(str(self._protocol.handshake_exc))}")
        return wire.best([self._protocol.subprotocol or ""], self._newest)
