"""A refusal that comes after the 101: a Close, with an HTTP status in its reason.

A server under gevent-websocket's handler has sent its 101 before it knows who comes (docs/wire.rst, "Close codes").
For the client it is the same as a refusal in place of the 101. Read next: reconnect.py, which asks for it when a
session has ended.
"""

from __future__ import annotations

import re

from etherws.client.refusals import RETRY_AFTER_MAX
from etherws.close_codes import CloseCode
from etherws.errors import ConnectError, ConnectionClosed, EtherwsError, NotAdmitted

#: Seconds to wait if the server names none.
RETRY_AFTER = 10

#: The reason: a status, Retry-After or not, and the server's own words.
_REASON = re.compile(r"(\d{3}) ([^;]*);(?: Retry-After: (\d{1,9});)? ")


def late_refusal(server: str, end: EtherwsError) -> ConnectError | None:
    """The error for the end of a session with `server` if it was such a refusal, else None: NotAdmitted for wrong
    credentials, another ConnectError with the time to wait if the server has no place now. Its message begins with
    `server`, unless that is empty."""
    if not isinstance(end, ConnectionClosed) or not (found := _REASON.match(end.reason)):
        return None
    text = f"{server and server + ': '}refused after its 101: {end.reason}"
    # The rest of the reason is the server's own words.
    kind = f"refused after its 101: {found[1]} {found[2]}"
    if end.code == CloseCode.POLICY_VIOLATION and found[1] in ("401", "403"):
        return NotAdmitted(text, kind=kind)
    if end.code == CloseCode.TRY_AGAIN_LATER:
        error = ConnectError(text, kind=kind)
        error.wait = float(min(int(found[3] or RETRY_AFTER), RETRY_AFTER_MAX))
        return error
    return None
