"""A server's end of the opening handshake, without a network: a stream that answers the upgrade request."""

from __future__ import annotations

import re

from etherws import features
from etherws.tunnel.wire import Buffer
from tests.lab.servers import switching
from tests.lab.streams import FakeStream


class Answering(FakeStream):
    """Answers the request by a 101 with these headers, and then ends."""

    def __init__(self, protocol: str, listed: str | features.Features) -> None:
        """`protocol` is Sec-WebSocket-Protocol, `listed` Etherws-Features or a list to prove; empty for none."""
        super().__init__()
        self._protocol, self._listed = protocol, listed
        #: The request.
        self.asked = ""

    def sendall(self, data: Buffer) -> None:
        """See Stream."""
        self.asked = bytes(data).decode()
        found = re.search(r"Sec-WebSocket-Key: (\S+)", self.asked)
        assert found
        listed = self._listed if isinstance(self._listed, str) else features.answer(found[1], self._listed)
        changes = {"Sec_WebSocket_Protocol": self._protocol.encode(), "Etherws_Features": listed.encode()}
        # A pong, so that the client need not ask whether it is let in.
        self.feed(switching(bytes(data), **changes) + b"\x8a\x00", b"")

    def offers(self) -> list[str]:
        """The lines of the request that have to do with the negotiation."""
        names = ("sec-websocket-protocol:", "etherws-features:")
        return [line for line in self.asked.split("\r\n") if line.lower().startswith(names)]
