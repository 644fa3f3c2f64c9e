"""One connection of a link, in place of a port: what a session needs of the port that all members of the link have.

Each has a descriptor of its own for its queue. Which members there are, and what they share, is in members.py. Read
next: members.py; ports_api.py, which says what a session needs.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

import gevent

from etherws.close_codes import CloseCode
from etherws.errors import ConnectionClosed, EtherwsError
from etherws.features import Membership
from etherws.server.comings import Parting
from etherws.server.owners import Owner
from etherws.server.port import ClientKey, Port, State
from etherws.tunnel.filtered_sink import FilteredSink
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.session import Session
from etherws.tunnel.tap import Tap

if TYPE_CHECKING:
    from etherws.server.members import Members

#: Seconds for which a connection that was replaced may still bring what its client has sent by it; docs/wire.rst says
#: so. The client closes it as soon as the new one is there.
RETIRED_SECONDS = 10.0


class Member:
    """One connection of a link: a PortApi."""

    def __init__(self, members: Members, membership: Membership, tap: Tap, evict: Callable[[], None]) -> None:
        """`tap` is a descriptor of its own for the queue of its number. `evict` is as for Ports.take()."""
        self.members, self.membership, self.tap = members, membership, tap
        # Else a client would have a part of this process's time for each of its connections.
        tap.turn.share = members.port.tap.turn.share
        #: By which rules its session was begun, or goes on.
        self.profile = members.port.profile
        #: Whether the link was there before it.
        self.joining = False
        self.filter = MemberFilter(members)
        #: Whether its session has begun, and whether that has ended.
        self.has_begun = self.has_ended = False
        #: Whether another connection has its queue.
        self.is_retired = False
        self._evict = evict
        self._since = monotonic()
        self._end: Callable[[EtherwsError], None] | None = None
        self._retire: Callable[[], None] = lambda: None
        self._failure: EtherwsError | None = None
        self._timer: gevent.Greenlet[..., None] | None = None

    @property
    def port(self) -> Port:
        """What the link has."""
        return self.members.port

    @property
    def state(self) -> State:
        """As PortApi.state: the last one of a link is parked as the port is."""
        return State.IN_USE if self.members.has(self) else self.port.state if self._is_parked() else State.FREE

    @property
    def since(self) -> float:
        """As PortApi.since."""
        return self.port.since if self._is_parked() else self._since

    @property
    def client(self) -> ClientKey:
        """As PortApi.client."""
        return self.members.client

    @property
    def owner(self) -> Owner | None:
        """Whose limits count."""
        return self.port.owner

    @property
    def may_come_back(self) -> bool:
        """Whether the link's last connection was lost, if this one was replaced before: then its own end is planned,
        and says nothing of the client. Not once it has left."""
        return self.is_retired and self.members.lost and self.members.has(self)

    def pacer(self, rate: int) -> Pacer:
        """As PortApi.pacer()."""
        return self.port.pacer(rate)

    def sink(self) -> FilteredSink:
        """As PortApi.sink()."""
        return FilteredSink(self.tap, self.filter)

    def on_failure(self, call: Callable[[EtherwsError], None]) -> None:
        """As PortApi.on_failure()."""
        self._end = call
        if self._failure is not None:
            call(self._failure)

    def began(self, retire: Callable[[], None]) -> None:
        """As PortApi.began()."""
        self._retire = retire
        self.members.began(self)

    def left(self, session: Session, reason: EtherwsError) -> None:
        """As PortApi.left()."""
        self.record(Parting.of(session, reason))

    def record(self, parting: Parting) -> None:
        """Its session has ended: this is what it has carried."""
        if self.has_begun and not self.has_ended:
            self.has_ended = True
            if not self.is_retired:
                self.members.lost = parting.code in (None, CloseCode.SERVICE_RESTART)
            self.members.record(self, parting)

    def fail(self, reason: EtherwsError) -> None:
        """End its session, also if that has not begun yet."""
        self._failure = self._failure or reason
        if self._end is not None:
            self._end(reason)

    def evict(self) -> None:
        """Another client is to have the port: end its session."""
        self._evict()
        if self._end is None:
            self.fail(ConnectionClosed("replaced by another connection of this client", CloseCode.POLICY_VIOLATION))

    def retire(self) -> None:
        """Another connection has its queue: have it send no more from there, and end soon."""
        self.is_retired = True
        self._retire()
        self._timer = gevent.spawn_later(RETIRED_SECONDS, self.fail, replaced())

    def close(self) -> None:
        """It uses its queue no longer."""
        if self._timer is not None:
            self._timer.kill(block=False)
            self._timer = None
        self.tap.close()
        # What these lead to leads back here: without a search for garbage, none would go.
        self._end, self._retire, self.filter.hold = None, lambda: None, None

    def _is_parked(self) -> bool:
        return self.members.last() is self and self.port.members is self.members and self.port.state is State.PARKED


class MemberFilter:
    """What filters a member: the port's filter, which holds the frames of all."""

    def __init__(self, members: Members) -> None:
        # Not the member, which has this: nobody would find the two but a search for garbage.
        self._members = members
        #: As for PortFilter.arm().
        self.hold: Callable[[], None] | None = None

    def arm(self, source: bytes = b"", hold: Callable[[], None] | None = None) -> None:
        """As PortFilter.arm()."""
        self.hold = hold
        self._members.port.filter.arm(source, self._members.hold)

    def drops(self) -> dict[str, int]:
        """As PortFilter.drops()."""
        return self._members.port.filter.drops()


def replaced() -> ConnectionClosed:
    """Why a member ends that another one has replaced: that was planned."""
    return ConnectionClosed("replaced by another connection of its link", CloseCode.NORMAL)
