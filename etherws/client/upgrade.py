"""The client's side of the opening handshake: the upgrade request, and the check of the server's 101.

The rules of RFC 6455, section 4.1, are the websockets library's (its sans-I/O protocol); the negotiation of version 2
is here. What another status than 101 means is said by attempt.py. Read next: etherws/features.py; attempt.py, which
tries again without an offer; server/negotiation.py, which is the other side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from websockets.client import ClientProtocol
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from etherws import __version__, features
from etherws.client.http_answer import HttpAnswer, read_answer
from etherws.errors import ConnectError, printable
from etherws.features import VERSION_2, Features
from etherws.tunnel.stream import Stream
from etherws.tunnel.wire import Version1, Version2


@dataclass(frozen=True)
class Agreement:
    """What a 101 agrees on: the version of the wire, the MTU of the server's interface in bytes, if it told it, and the
    list of features.

    With a `doubt`, which is a sentence for the log, the server may mean another version than the client understands.
    """

    version: Version1 | Version2
    mtu: int | None = None
    doubt: str = ""
    features: Features = field(default_factory=dict)


class Upgrade:
    """One upgrade request, and what its answer means."""

    def __init__(self, uri: WebSocketURI, offer: Features | None) -> None:
        """`offer` has the features to offer, version 2 among them unless it is a check by version 1; None to offer
        nothing."""
        self._offer = offer
        # An empty list would be an empty header, which RFC 6455, section 11.3.4, forbids.
        named = [Subprotocol(Version2.name)] if offer and VERSION_2 in offer else None
        self._protocol = ClientProtocol(uri, subprotocols=named)

    def ask(self, stream: Stream, own: Sequence[tuple[str, str]], users: Sequence[tuple[str, str]]) -> HttpAnswer:
        """Send the request and read the answer. The request has our `own` headers and the user's, who may replace ours.

        Raises ConnectError, and OSError as the stream does.
        """
        request = self._protocol.connect()
        request.headers["User-Agent"] = f"etherws/{__version__}"
        if self._offer:
            request.headers[features.HEADER] = features.write(self._offer)
        for name, value in own:
            request.headers[name] = value
        for name, _ in users:
            request.headers.pop(name, None)
        for name, value in users:
            request.headers[name] = value
        self._protocol.send_request(request)
        stream.sendall(b"".join(self._protocol.data_to_send()))
        hint = "is that an etherws server?"
        if not self._protocol.uri.secure:
            hint += " does this port want TLS (wss://)?"
        return read_answer(stream.recv, hint=hint, exact=False)

    def agreed(self, answer: HttpAnswer) -> Agreement:
        """What this answer, a 101, agrees on. Raises ConnectError if it breaks a rule of RFC 6455."""
        protocol = self._protocol
        protocol.receive_data(answer.head + b"\r\n\r\n")
        if protocol.handshake_exc is not None:
            raise _invalid(answer, protocol.handshake_exc)
        if not self._offer:
            return Agreement(Version1())
        lists = answer.values(features.HEADER)
        found = features.proved(protocol.key, ", ".join(lists)) or {}
        named, proved = protocol.subprotocol == Version2.name, VERSION_2 in found
        if named and proved:
            # What the server has not been offered, it cannot agree to.
            uso, padding = (name in found and name in self._offer for name in (features.USO, features.PADDING))
            return Agreement(Version2(uso=uso, padding=padding), features.mtu_of(found), features=found)
        doubt = _doubt(named, lists) if named or proved else ""
        mtu = features.mtu_of(found) if features.CHECK in found else None
        return Agreement(Version1(), mtu, doubt, found)


def _doubt(named: bool, lists: list[str]) -> str:
    """What is wrong with a 101 that agrees on version 2 by half. `named` is whether it names the subprotocol, `lists`
    are its values of the header Etherws-Features."""
    if not named:
        return "a proxy on the way removed Sec-WebSocket-Protocol from its answer"
    if not lists:
        return (
            f"it chose {Version2.name} without the header {features.HEADER}: a proxy on the way removed the header, or"
            " it is an older etherws, or another program that echoes what it is offered"
        )
    return (
        f"its header {features.HEADER} does not belong to this handshake: a proxy on the way makes the handshake"
        " anew, or another program echoes what it is offered"
    )


def _invalid(answer: HttpAnswer, reason: Exception) -> ConnectError:
    """The error for a 101 that breaks a rule."""
    kind = "gave no valid answer to the upgrade"
    if answer.head.startswith(b"HTTP/1.0"):
        return ConnectError(f"{kind}: it is in HTTP/1.0; does a proxy between speak that? see docs/reverse-proxies.rst")
    return ConnectError(f"{kind}: {printable(str(reason))}", kind=kind)
