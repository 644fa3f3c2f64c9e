"""The record of each client that joins, and of each that leaves: one line of the log, with all that is known of it.

No limit of the log leaves one out (log_limit.py): whoever must know who was on the LAN, and when, reads these. Read
next: tunnels.py, which calls this; events.py.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gevent import spawn_later

from etherws.close_codes import CloseCode
from etherws.counters import Traffic, Values
from etherws.errors import ConnectionClosed, EtherwsError, printable
from etherws.events import JOIN, LEAVE, PORT, event
from etherws.features import Membership
from etherws.log_limit import LogLimit
from etherws.tunnel.session import Session

if TYPE_CHECKING:
    from etherws.server.port import ClientKey

log = logging.getLogger(__name__)

#: Seconds from the loss of one connection of a link until the log says so. A path that is cut ends all of them within
#: this time, and then the line of the client that leaves is all there is to say. As in client/members.py.
SETTLED = 0.5

#: Reasons of drops that another process may tell. Ours are some ten.
REASONS_MAX = 100

#: The largest count that another process may tell: as bytes, a path of 100 Gbit/s takes 23 years to reach it.
COUNT_MAX = 1 << 63

#: For what a client may cause again and again.
_limit = LogLimit(log)

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


@dataclass
class Parting:
    """What the connections of a link that have ended have carried together, and why the last one ended."""

    sent: Traffic = field(default_factory=Traffic)
    received: Traffic = field(default_factory=Traffic)
    drops: Counter[str] = field(default_factory=Counter)
    #: In words, and the close code.
    reason: str = ""
    code: int | None = None

    @classmethod
    def of(cls, session: Session, reason: EtherwsError) -> Parting:
        """Of one session."""
        values = session.status()
        sent, received = Traffic(**values["sent"]), Traffic(**values["received"])
        return cls(sent, received, Counter(values["drops"]), in_words(reason), getattr(reason, "code", None))

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Parting:
        """As to_values() has them. Raises KeyError, TypeError or ValueError if they are malformed."""
        sent, received = Traffic(**values["sent"]), Traffic(**values["received"])
        drops, reason, code = values["drops"], values["reason"], values["code"]
        if not isinstance(drops, dict) or len(drops) > REASONS_MAX:
            raise ValueError("drops that are none")
        numbers = (*sent.values().values(), *received.values().values(), *drops.values())
        if not (all(map(_is_count, numbers)) and (code is None or _is_count(code))):
            raise ValueError("counts that are none")
        named = Counter({printable(str(why)): count for why, count in drops.items()})
        return cls(sent, received, named, printable(str(reason)), code)

    def to_values(self) -> Values:
        """For JSON."""
        return {
            "sent": self.sent.values(),
            "received": self.received.values(),
            "drops": dict(self.drops),
            "reason": self.reason,
            "code": self.code,
        }

    def add(self, other: Parting, *, replaced: bool = False) -> None:
        """Another one has ended, later; one that was `replaced` before does not say why."""
        self.sent.add(other.sent)
        self.received.add(other.received)
        self.drops.update(other.drops)
        if not replaced:
            self.reason, self.code = other.reason, other.code


def _is_count(value: Any) -> bool:
    # Not isinstance(): a bool is an int. A longer one could not even be written.
    return type(value) is int and 0 <= value <= COUNT_MAX


def joined(client: ClientKey, device: str, wire: int, membership: Membership | None = None) -> None:
    """A client has joined on this interface, and speaks this version of the wire. `membership`: by a link."""
    several = f", with {membership.of} connections at most" if membership and membership.of > 1 else ""
    log.info(
        "%s joined on %s, by version %d of the wire%s",
        client.label,
        device,
        wire,
        several,
        extra=event(JOIN, **fields(client), device=device, wire=wire),
    )


def left(client: ClientKey, device: str, session: Session, reason: EtherwsError, drops: Mapping[str, int]) -> None:
    """Its session has ended, for this reason. `drops` is what was dropped elsewhere."""
    parting, seconds = Parting.of(session, reason), session.age
    _left(client, device, seconds, session.status()["wire"], parting, drops, session.counters(drops))


def link_left(client: ClientKey, device: str, seconds: float, parting: Parting, drops: Mapping[str, int]) -> None:
    """All connections of a client's link have ended; it was there for so many seconds. As left()."""
    sent, received, dropped = parting.sent.bytes, parting.received.bytes, parting.drops + Counter(drops)
    counters = f"; sent {sent} bytes, received {received}" if sent or received else ""
    if dropped:
        counters += "; dropped " + ", ".join(f"{count} {why}" for why, count in sorted(dropped.items()))
    _left(client, device, seconds, 2, parting, drops, counters)


def _left(
    client: ClientKey,
    device: str,
    seconds: float,
    wire: int,
    parting: Parting,
    drops: Mapping[str, int],
    counters: str,
) -> None:
    log.info(
        "%s left %s after %.0f s: %s%s",
        client.label,
        device,
        seconds,
        parting.reason,
        counters,
        extra=event(
            LEAVE,
            **fields(client),
            device=device,
            wire=wire,
            seconds=round(seconds, 3),
            sent=parting.sent.bytes,
            received=parting.received.bytes,
            drops=dict(parting.drops + Counter(drops)),
            reason=parting.reason,
            code=parting.code,
        ),
    )


def member_joined(client: ClientKey, device: str, membership: Membership) -> None:
    """One more connection of a client's link is there."""
    log.debug("%s: connection %d is there, on %s", client.label, membership.member, device)


def member_left(
    client: ClientKey, device: str, membership: Membership, parting: Parting, there: Callable[[], int]
) -> None:
    """One connection of a client's link has ended; `there` returns how many go on."""
    # With a code it is planned: the client replaces its connections one by one, or leaves by all of them.
    if parting.code is not None:
        log.debug("%s: connection %d on %s has ended: %s", client.label, membership.member, device, parting.reason)
    else:
        spawn_later(SETTLED, _member_lost, client, device, membership, parting.reason, there)


def _member_lost(client: ClientKey, device: str, membership: Membership, reason: str, there: Callable[[], int]) -> None:
    if count := there():
        _limit.log(
            logging.INFO,
            "connection lost",
            "%s: lost connection %d on %s: %s; %d of %d are there",
            *(client.label, membership.member, device, reason, count, membership.of),
            extra=event(PORT, **fields(client), device=device, what="connection lost", member=membership.member),
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
