"""What etherws itself says in a refusal: which header of the request has not reached it, and whether it has no check.

Pure. The words are those of server/handshake.py, server/authenticate.py and others of the server; the tests
compare them. Read next: hops.py, which knows who may have lost a header; answers.py, the caller.
"""

from __future__ import annotations

#: What etherws says, and what it did not get.
_LOST = (
    ("this is etherws, an Ethernet tunnel", "Upgrade and Sec-WebSocket-Key"),
    ("the Upgrade header does not say 'websocket'", "Upgrade"),
    ("the Connection header does not say 'Upgrade'", "Connection"),
    ("a WebSocket needs HTTP/1.1, not", "Upgrade, as the request came in HTTP/1.0"),
    ("exactly one Host header is required", "Host"),
    ("the Sec-WebSocket-Version header must be", "Sec-WebSocket-Version"),
    ("the Sec-WebSocket-Key header must be", "Sec-WebSocket-Key"),
    ("a WebSocket begins with GET, not", "the method GET"),
)

#: What etherws answers if it has got no credentials.
_NO_LOGIN = "this server asks for "

#: How it refuses a client by its policy.
POLICY = b"the policy does not let this client connect"

#: How it refuses a client while it is being drained, and one that the operator has ended (server/gate.py).
DRAINING = b"this server is draining"
ENDED = b"the operator of this server has ended"

#: Other words of etherws in a refusal.
_OWN = (
    b"wrong user, password or token",
    b"this server does not accept credentials of that kind",
    POLICY,
    DRAINING,
    ENDED,
    b"there is no tunnel at this path",
    b"too many wrong passwords or tokens",
    b"the client's certificate",
    b"no port is free",
)

#: Why a check is not answered. The client was let in before.
_NO_CHECK = (
    b"this server has checks turned off",
    b"another check is running",
    b"you have measured for a long time",
    b"no check can begin now",
    b"too many silent connections of checks",
)


def lost(body: bytes) -> str:
    """What etherws did not get of a proper upgrade request; empty if its answer says nothing of that."""
    text = body.decode(errors="replace")
    return next((header for words, header in _LOST if words in text), "")


def lost_authorization(status: int | None, body: bytes, sent: bool) -> bool:
    """Whether etherws got no credentials, though we had `sent` some."""
    return status == 401 and sent and body.startswith(_NO_LOGIN.encode())


def is_etherws(body: bytes) -> bool:
    """Whether these are the words of etherws, whoever has passed them on."""
    return bool(lost(body)) or body.startswith((_NO_LOGIN.encode(), *_OWN, *_NO_CHECK))


def no_check(body: bytes) -> bool:
    """Whether etherws lets the client in, but does not answer a check now."""
    return body.startswith(_NO_CHECK)
