"""The record of each client that joins, and of each that leaves: one line of the log, with all that is known of it.

No limit of the log leaves one out (log_limit.py): whoever must know who was on the LAN, and when, reads these. Read
next: tunnels.py, which calls this; events.py.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

from etherws.close_codes import CloseCode
from etherws.counters import Values
from etherws.errors import ConnectionClosed, EtherwsError, printable
from etherws.events import JOIN, LEAVE, event
from etherws.server.port import ClientKey
from etherws.tunnel.session import Session

log = logging.getLogger(__name__)

#: What a client means by the code of its Close.
_MEANT = {
    CloseCode.NORMAL: "it was stopped, or left on purpose",
    CloseCode.GOING_AWAY: "it is being stopped",
    CloseCode.PROTOCOL_ERROR: "it says that this server broke a rule of WebSocket",
    CloseCode.INVALID_DATA: "it could not use what it was sent",
    CloseCode.POLICY_VIOLATION: "it does not allow what it was sent",
    CloseCode.TOO_BIG: "a message was too long for it",
    CloseCode.INTERNAL_ERROR: "something failed at its side",
    CloseCode.SERVICE_RESTART: "it restarts, and comes back at once",
    CloseCode.TRY_AGAIN_LATER: "it has no time now",
}


def joined(client: ClientKey, device: str, wire: int) -> None:
    """A client has joined on this interface, and speaks this version of the wire."""
    log.info(
        "%s joined on %s, by version %d of the wire",
        client.label,
        device,
        wire,
        extra=event(JOIN, **fields(client), device=device, wire=wire),
    )


def left(client: ClientKey, device: str, session: Session, reason: EtherwsError, drops: Mapping[str, int]) -> None:
    """Its session has ended, for this reason. `drops` is what was dropped elsewhere."""
    values = session.status()
    words = in_words(reason)
    log.info(
        "%s left %s after %.0f s: %s%s",
        client.label,
        device,
        session.age,
        words,
        session.counters(drops),
        extra=event(
            LEAVE,
            **fields(client),
            device=device,
            wire=values["wire"],
            seconds=round(session.age, 3),
            sent=values["sent"]["bytes"],
            received=values["received"]["bytes"],
            drops=dict(Counter(values["drops"]) + Counter(drops)),
            reason=words,
            code=getattr(reason, "code", None),
        ),
    )


def fields(client: ClientKey) -> Values:
    """Who a client is, for an event. Its name may be long, and have control characters: see printable()."""
    return {
        "identity": None if client.identity is None else printable(client.identity),
        "address": client.address,
        "proxy": client.proxy or None,
    }


def in_words(reason: EtherwsError) -> str:
    """Why a session has ended, with what the client's close code means."""
    text = str(reason)
    meant = _MEANT.get(reason.code) if isinstance(reason, ConnectionClosed) and reason.code else None  # type: ignore[call-overload]
    return f"{text} ({meant})" if meant and text.startswith("closed by the peer") else text
