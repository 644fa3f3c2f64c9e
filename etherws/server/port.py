"""One port of the server: a TAP, the client that has it, and the state that it is in.

Only ports.py changes a port's state, and which change may follow which is asserted here, in become(). Read next:
ports.py, and kernel/port_filter.py, which decides when the kernel gets a client's rules.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import gevent
from gevent.event import Event

from etherws.access.policy import Profile
from etherws.addresses import source_key
from etherws.errors import DeviceError, EtherwsError, NoPort, printable
from etherws.events import PORT, event
from etherws.features import Membership
from etherws.kernel.port_filter import PortFilter
from etherws.kernel.rules import Rules
from etherws.server import comings
from etherws.server.owners import Owner
from etherws.tunnel.filtered_sink import FilteredSink
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.session import Session
from etherws.tunnel.tap import Tap

if TYPE_CHECKING:
    from etherws.server.members import Members

log = logging.getLogger(__name__)

#: Two clients with one name replace each other again and again: so many times in so many seconds are too many.
#: A client that comes back with the same resume token is not counted.
CHANGES, CHANGES_WITHIN = 3, 30.0

#: Seconds that a session has to leave its port once it was told to end.
EVICT_TIMEOUT = 2.0


class State(Enum):
    """What a port can be."""

    #: No client has it. Only the first port stays so; any other is about to be removed.
    FREE = "free"
    #: A client's session uses it.
    IN_USE = "in use"
    #: Kept for a lost client, which may come back.
    PARKED = "parked"
    #: Its TAP is closed, or about to be.
    GONE = "gone"


#: The states that may follow each state.
_NEXT = {
    State.FREE: {State.IN_USE, State.GONE},
    State.IN_USE: {State.PARKED, State.FREE, State.GONE},
    State.PARKED: {State.IN_USE, State.FREE, State.GONE},
    State.GONE: set[State](),
}


@dataclass(frozen=True)
class ClientKey:
    """What a client is known by when it comes again.

    `identity`: its user name or its certificate's name; None where the server asks for none. `resume`: the token that
    this client has chosen; None if it sends none. `address` is where it comes from; it may come from elsewhere again.
    `proxy` is the trusted reverse proxy that has said so, if any: its address, or "unix".
    """

    identity: str | None = None
    resume: str | None = None
    address: str = field(default="", compare=False)
    proxy: str = field(default="", compare=False)

    @property
    def source(self) -> str:
        """The key by which the address is counted."""
        return source_key(self.address)

    @cached_property
    def label(self) -> str:
        """The client, as the log shows it. Who looks at all ports asks each for it."""
        return self.address + (f" as {printable(self.identity)!r}" if self.identity else "")


class Origin(NamedTuple):
    """With which settings a port was made: by which name or pattern, the bridge that was named for it, the MTU that was
    asked for."""

    device: str
    bridge: str | None
    mtu: int | None


class Port:
    """A TAP, what the kernel enforces there, and the client that has it."""

    #: As PortApi: who has a port itself has it by one connection, and by no link.
    membership: Membership | None = None
    joining = False

    def __init__(self, tap: Tap, port_filter: PortFilter, origin: Origin) -> None:
        """A free port."""
        self.tap = tap
        self.filter = port_filter
        self.origin = origin
        self.state = State.FREE
        #: When it came into that state, by monotonic().
        self.since = monotonic()
        #: The present client, or the last one.
        self.client = ClientKey()
        self.profile = Profile()
        #: Whose limits count for that client; None before the first one.
        self.owner: Owner | None = None
        #: The connections of its client, or its last one, if that has it by a link.
        self.members: Members | None = None
        #: Ends the session that uses it; None in any other state than IN_USE.
        self.evict: Callable[[], None] | None = None
        #: Who has the port's session ended, and takes the port then.
        self.heir: ClientKey | None = None
        #: Whether its session has ended, and it is about to be free.
        self.leaving = False
        #: Set in any other state than IN_USE.
        self.unused = Event()
        self.unused.set()
        #: Whether it was parked because the process of its session has ended, with all of that one's.
        self.taken_over = False
        #: Ends the state PARKED, at `kept_until` by monotonic().
        self.timer: gevent.Greenlet[..., None] | None = None
        self.kept_until = 0.0
        #: How often the present client has got this port back.
        self.reconnects = 0
        #: Why its session is to end, if it was told so before it could hear.
        self._failure: EtherwsError | None = None
        #: When other clients of the same identity took the port over.
        self.changes: deque[float] = deque(maxlen=CHANGES)
        #: Called when it has another client or another state.
        self.on_change: Callable[[Port], None] = lambda _: None

    def become(self, state: State) -> None:
        """Change the state. What a state implies is set here: the timer, `evict` and `unused`."""
        assert state in _NEXT[self.state], f"{self.tap.name}: a port that is {self.state.value} cannot be {state.value}"
        if self.timer is not None:
            self.timer.kill(block=False)
            self.timer = None
        self.state, self.since, self.leaving, self.taken_over = state, monotonic(), False, False
        self._failure = None
        if state is State.IN_USE:
            self.unused.clear()
        else:
            self.evict = self.filter.on_failure = None
            self.unused.set()
        if state is State.GONE and self.members is not None:
            self.members.close()
        self.on_change(self)

    def belong_to(self, client: ClientKey) -> None:
        """It is this client's from now on."""
        self.client = client
        self.on_change(self)

    def park(self, timeout: float, expire: Callable[[Port], None], *, taken_over: bool = False) -> None:
        """Keep it for its client; `expire` is called with it if that does not come within `timeout` seconds."""
        self.become(State.PARKED)
        self.taken_over = taken_over
        self.on_change(self)
        self.kept_until = self.since + timeout
        self.timer = gevent.spawn_later(timeout, expire, self)

    def expired(self) -> None:
        """Its client has not come back in time: say so. The timer calls this: what follows must not stop it."""
        self.timer = None
        log.info(
            "%s did not come back within %.0f s: %s is free",
            self.client.label,
            monotonic() - self.since,
            self.tap.name,
            extra=event(
                PORT,
                identity=self.client.identity and printable(self.client.identity),
                address=self.client.address,
                device=self.tap.name,
                what="expired",
            ),
        )

    def take_over(self, owner: Owner, timeout: float, expire: Callable[[Port], None]) -> None:
        """Another process had it in use, for a client with this owner: as park()."""
        self.owner, self.filter.learned = owner, owner.learned
        self.become(State.IN_USE)
        self.park(timeout, expire, taken_over=True)

    def fits(self, profile: Profile, *, queues: bool = False) -> bool:
        """Whether it is still right for its client, whose profile is this now; with `queues`, for a link of several
        connections."""
        same_place = place_of(self.profile) == place_of(profile)
        # The user's own TAP stays as it is: there the link has one connection.
        enough = not queues or self.tap.multi_queue or self.tap.persistent
        return same_place and enough and self.tap.alive() and self.filter.refusal(rules_of(profile)) is None

    def withdraw(self) -> None:
        """It is gone: leave no rules of ours at an interface that may stay, or whose name others may have. With any
        other interface they go later, many together."""
        if self.tap.persistent or self.filter.place.is_away():
            try:
                self.filter.clear()
            except DeviceError as exc:
                log.error("%s", exc)
        self.filter.forget()

    def end_session(self) -> None:
        """End the session that uses the port, and wait for that. Raises NoPort if that takes too long."""
        if self.evict is not None:
            self.evict()
        if not self.unused.wait(EVICT_TIMEOUT):
            raise NoPort(f"{self.tap.name} is still in use by a session that was told to end")

    def count_return(self, client: ClientKey, *, ended_for_it: bool) -> None:
        """The port is about to be this client's. `ended_for_it`: its session was ended for it, so it was not parked."""
        back = (ended_for_it or self.state is State.PARKED) and client == self.client
        self.reconnects = self.reconnects + 1 if back else 0

    def count_change(self) -> None:
        """A client takes the port from another of its identity. Raises NoPort if that has happened too often."""
        now = monotonic()
        if len(self.changes) == CHANGES and now - self.changes[0] < CHANGES_WITHIN:
            raise NoPort(
                f"several clients call themselves {self.client.identity!r} and take {self.tap.name} from each other;"
                " give each a name of its own, or more 'connections' by --policy"
            )
        self.changes.append(now)

    def pacer(self, rate: int) -> Pacer:
        """What keeps the client, with all connections of its owner, to `rate` bits per second."""
        assert self.owner is not None
        return self.owner.pacer(rate)

    def on_failure(self, call: Callable[[EtherwsError], None]) -> None:
        """`call` ends the client's session: when others have removed its rules and they cannot be put back, and at
        fail()."""
        self.filter.on_failure = call
        if failure := self._failure or self.filter.failure:
            call(failure)

    def fail(self, reason: EtherwsError) -> None:
        """End the session that uses the port, for this reason. Does not wait for that."""
        if self.filter.on_failure is not None:
            self.filter.on_failure(reason)
        elif self.state is State.IN_USE:
            # Its session has not begun yet.
            self._failure = reason

    def began(self, retire: Callable[[], None]) -> None:
        """As PortApi.began()."""

    def left(self, session: Session, reason: EtherwsError) -> None:
        """As PortApi.left()."""
        comings.left(self.client, self.tap.present_name(), session, reason, self.filter.drops())

    def sink(self) -> FilteredSink:
        """Where a session puts what the client sends. One for each session."""
        return FilteredSink(self.tap, self.filter)


def place_of(profile: Profile) -> tuple[object, ...]:
    """What of a profile cannot be changed at a port that exists: all else is a matter of its rules."""
    return profile.bridge, profile.device, profile.mtu


def rules_of(profile: Profile) -> Rules:
    """What of a profile the kernel enforces."""
    return Rules(
        macs=profile.macs,
        drop=profile.drop,
        rate_down=profile.rate_down,
        isolated=profile.isolated,
        vlan=profile.vlan,
        vlans=profile.vlans,
        macs_required=profile.macs != Profile().macs,
        addresses=profile.addresses,
        # The rate is for all connections of an identity together. Each has a port of its own, and a share.
        group_rate=profile.group_rate and max(1, profile.group_rate // profile.connections),
    )
