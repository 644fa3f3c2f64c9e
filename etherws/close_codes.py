"""Why a WebSocket ends, as a number (RFC 6455, section 7.4.1; IANA, "WebSocket Close Code Number Registry")."""

from __future__ import annotations

from enum import IntEnum

from etherws.errors import ConnectionClosed, ProtocolError, printable


class CloseCode(IntEnum):
    """The codes that etherws sends, or looks for."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013


#: The reason of a Close 1012 by a server that drains: it takes nobody back, so the client tries its next server first.
DRAINING = "draining"


def parse_close(payload: bytes | bytearray | memoryview) -> tuple[int | None, str]:
    """The code and the reason in a Close frame's payload. Raises ProtocolError if they are illegal (section 5.5.1)."""
    if len(payload) == 0:
        return None, ""
    if len(payload) == 1:
        raise ProtocolError(CloseCode.PROTOCOL_ERROR, "Close frame of one byte")
    code = int.from_bytes(payload[:2], "big")
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise ProtocolError(CloseCode.PROTOCOL_ERROR, f"close code {code}")
    try:
        return code, bytes(payload[2:]).decode()
    except UnicodeDecodeError:
        raise ProtocolError(CloseCode.INVALID_DATA, "text that is not UTF-8") from None


def closed_by_peer(payload: bytes | bytearray | memoryview) -> ConnectionClosed:
    """The error for a Close with this payload. Raises ProtocolError if the payload is illegal."""
    code, reason = parse_close(payload)
    text = f"closed by the peer, code {code or 'none'}"
    return ConnectionClosed(f"{text}: {printable(reason)}" if reason else text, code, printable(reason))
