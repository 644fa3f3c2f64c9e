"""Why a WebSocket ends, as a number (RFC 6455, section 7.4.1; IANA, "WebSocket Close Code Number Registry")."""

from __future__ import annotations

from enum import IntEnum


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
