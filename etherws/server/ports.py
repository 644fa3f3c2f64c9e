"""The server's ports: which client gets which, and what becomes of a port when its client goes.

The first port is there from start to stop, and one is made for each further client. All are in the same Linux bridge,
which switches between the clients; nothing here sees a frame. The port of a lost client is kept for a while, with what
the bridge has learnt there and the interface's counters. Read next: port.py, one port; port_maker.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from etherws.access.policy import Profile
from etherws.errors import DeviceError, NoPort
from etherws.features import Membership
from etherws.kernel.rules import Rules
from etherws.kernel.store import Store
from etherws.server import kept_owners, members
from etherws.server.checks import Checks
from etherws.server.gate import Gate
from etherws.server.member import Member
from etherws.server.members import Members
from etherws.server.port import ClientKey, Port, State, rules_of
from etherws.server.port_maker import PortMaker
from etherws.server.port_table import PortTable
from etherws.server.presence import UNKNOWN, Presence
from etherws.server.wanted import Wanted
from etherws.settings import DeviceSettings
from etherws.tunnel.scheduling import low_priority

log = logging.getLogger(__name__)

#: How many ports are kept for lost clients: as many as a bridge has (Linux, net/bridge/br_private.h), so that all get
#: theirs back if all lose the way here at once. A port that is kept goes for a client that needs the place.
PARKED_MAX = 1023


class Ports:
    """All ports of a server. There is one verb for each change of a port's state:

    ========  ==================================  ==========================================================
    verb      change                              when
    ========  ==================================  ==========================================================
    take()    free, parked -> in use              a client comes
    park()    in use -> parked                    its session has ended, and the client may come back
    free()    in use, parked -> free              its session has ended, or it was parked for too long
    remove    free, in use, parked -> gone        it is free and not the first port, its TAP was deleted, or
                                                  the server stops
    ========  ==================================  ==========================================================
    """

    def __init__(self, settings: DeviceSettings, resume_timeout: float = 0.0, store: Store | None = None) -> None:
        """Make the first port, or use what the last process has left in the store: ports that had a client are parked.
        A lost client's port is kept for `resume_timeout` seconds. Raises DeviceError."""
        self._resume_timeout, self._carrier_timeout = resume_timeout, settings.carrier_timeout
        self._store = store or Store()
        #: Who may not join now.
        self.gate = Gate()
        self._maker = PortMaker(settings, self._store)
        self._owners = kept_owners.restore(self._store, self.gate)
        self.checks = Checks(self._owners, self.gate, full=self._maker.is_full)
        #: The one that is always there; and all that are not gone.
        self.first = self._maker.first
        self._ports = PortTable(self.first, *self._maker.take_over(self._owners, self._resume_timeout, self._expire))
        self.loops = self._maker.watch_loops(lambda: {port.tap.index: port.client.label for port in self._ports})

    def __iter__(self) -> Iterator[Port]:
        """All that are not gone."""
        return iter(self._ports)

    @property
    def name(self) -> str:
        """The name of the first port's interface."""
        return self._maker.name

    def take(
        self,
        client: ClientKey,
        profile: Profile,
        evict: Callable[[], None],
        presence: Presence = UNKNOWN,
        membership: Membership | None = None,
    ) -> Port | Member:
        """Give the client a port or, with `membership`, what one connection of a link has of it; it calls park() or
        free() when its session has ended.

        `evict` is called when another session is to have the port. It must soon lead to park() or free(). Ports are
        made one at a time, as low-priority work of the client's address. With `presence`, the wait ends with ClientGone
        when the client hangs up.

        A client that comes again gets its port, even if the server has not noticed yet that it was lost. If its
        identity has as many ports as the profile allows, it gets one of those. Else it gets the first port if that is
        free, or a new one. Raises NoPort or DeviceError, with a hint, and Refused: the gate is closed, or no such link.
        """
        wanted = Wanted(client, profile, evict, membership)
        promised: Port | None = None
        try:
            while True:
                # One at a time: without that, two clients that come at once could get the same port.
                with presence.turn(client.source):
                    if self.first.state is State.GONE:
                        raise NoPort("the server is stopping")
                    # Each time, and again in _give(): the operator may have ended it meanwhile.
                    self.gate.check(client.identity, client.address)
                    if membership and (
                        link := members.to_join(self._ports.all_of(client), client, profile, membership)
                    ):
                        if link.port.profile != profile:
                            self.apply(link.port, profile)
                        return link.add(membership, evict, joining=True)
                    rules = self._maker.rules(profile)
                    was, promised, found = promised, None, self._choose(wanted, promised)
                    if found.state is not State.IN_USE:
                        found.count_return(client, ended_for_it=found is was)
                        return self._give(found, wanted, rules)
                    # Its session ends outside of the turn: others need not wait for that.
                    promised, found.heir = found, client
                with presence.required():
                    found.end_session()
        finally:
            if promised is not None:
                promised.heir = None
                if promised.state is State.FREE:
                    self.free(promised)

    def _choose(self, wanted: Wanted, promised: Port | None) -> Port:
        """The port for a client: one that can be handed over, or one in use whose session is to be ended. `promised` is
        the one whose session was ended for it, if any."""
        found = promised if promised and promised.state in (State.FREE, State.PARKED) else wanted.own(self._ports)
        if promised is not None:
            promised.heir = None
        # The policy may have changed since, or somebody has deleted the TAP.
        if found and found.state is not State.IN_USE and not found.fits(wanted.profile, queues=wanted.queues):
            self._release(found)
            found = None
        return found or self._other(wanted.profile, queues=wanted.queues)

    def _give(self, port: Port, wanted: Wanted, rules: Rules) -> Port | Member:
        """Free or parked -> in use. Raises DeviceError if its rules cannot be put in, NoPort, and Refused."""
        client, membership = wanted.client, wanted.membership
        returning = client.resume is not None and port.client == client
        port.become(State.IN_USE)
        port.profile, port.evict, port.members = wanted.profile, wanted.evict, None
        port.belong_to(client)
        port.owner = self._owners.of(client.identity, client.address)
        # Before its rules: after a crash they are put in for this client, and never for the one before.
        self._maker.note(port)
        try:
            self.gate.check(client.identity, client.address)
            port.filter.need(rules, port.owner.learned, returning=returning)
            given = Members(port, membership).found(membership, wanted.evict) if membership else port
        except BaseException:
            # Whatever it is: nobody would ever give the port back.
            if port.members is not None:
                port.members.close()
            self._release(port)
            raise
        if port.state is State.GONE:
            raise NoPort("the server is stopping")
        return given

    def apply(self, port: Port | Member, profile: Profile) -> None:
        """The profile of the port's client has changed, but not where the port is (bridge, device, MTU): have the new
        rules in force, for a session that runs as well. Raises DeviceError; then no frame may pass."""
        if isinstance(port, Member):
            port.profile, port = profile, port.port
            if port.profile == profile:
                return
        with members.ended_by_failure(port):
            rules = self._maker.rules(profile)
            port.profile = profile
            self._maker.note(port)
            port.filter.change(rules)

    def park(self, given: Port | Member, *, taken_over: bool = False) -> None:
        """The session that used the port has ended without a good-bye: keep it for its client, if that may come back.
        `taken_over`: so have all others of a process. Those do not count for PARKED_MAX. Nothing happens as long as the
        client has other connections of its link. Raises DeviceError as free()."""
        port = members.given_back(given, self._carrier_timeout)
        if port is None or port.state is State.GONE:
            return
        # A client that cannot be recognised gets no port back, and while the server drains nobody does.
        if not self._resume_timeout or self.gate.draining or port.client == ClientKey() or not port.tap.alive():
            self.free(port)
            return
        port.park(self._resume_timeout, self._expire, taken_over=taken_over)
        self._maker.note(port)
        if self._ports.kept > PARKED_MAX and (longest := self._ports.kept_longest()):
            self.free(longest)

    def free(self, given: Port | Member) -> None:
        """The client has left the port for good. It is removed, unless it is the first port. Nothing happens as long as
        the client has other connections of its link. Raises DeviceError if the first port's TAP was deleted and cannot
        be made anew."""
        if isinstance(given, Member) and given.may_come_back:
            self.park(given)
            return
        port = members.given_back(given, self._carrier_timeout)
        if port is None or port.state is State.GONE:
            return
        if port.state is not State.FREE:
            before, port.leaving = port.since, True
            self._leave(port)
            # Its client may have come meanwhile, or the server stops.
            if port.since != before:
                return
            port.become(State.FREE)
            self._maker.note(port)
        # A client had this session ended, and takes the port now.
        if port.heir is not None:
            return
        with low_priority.turn(port.client.source):
            if port.state is not State.FREE or port.heir is not None:
                return
            if port is self.first:
                self._renew_first()
                return
            port.become(State.GONE)
        # Others need not wait until the kernel has removed it.
        self._maker.close_port(port)

    def close(self) -> None:
        """Remove what was made: the TAPs, and the bridge unless others use it."""
        self.first.become(State.GONE)
        # To close TAPs takes a moment, in which sessions may end and their ports go.
        while ports := [*self._ports]:
            for port in ports:
                port.become(State.GONE)
            self._maker.close_ports(ports)
        self.first.withdraw()
        self._maker.close()

    def keep(self) -> None:
        """Have the store keep all ports as they are now, for a process that only looks at them."""
        self._maker.keep(self._ports)

    def hand_over(self) -> None:
        """As keep(), but this process uses nothing of it any longer. TAPs, rules and bridges stay as they are."""
        self.keep()
        kept_owners.keep(self._store, self._owners, self.gate)
        ports = [*self._ports]
        for port in ports:
            port.become(State.GONE)
        self._maker.hand_over(ports)

    def _other(self, profile: Profile, *, queues: bool) -> Port:
        """A free port for a client that has none: the first port if it is free and fits the profile, else a new one."""
        if self.first.state in (State.FREE, State.PARKED) and not self.first.tap.alive():
            # Somebody has deleted it. A further port needs it as well: it tells the bridge and the MTU.
            self._release(self.first)
            self._renew_first()
        refusal = self.first.filter.refusal(rules_of(profile))
        usable = not (profile.device or profile.bridge or profile.mtu or refusal)
        if usable:
            # Without a bridge there is no other: this client gets it rather than one that may never come back.
            if self.first.state is State.PARKED and self._maker.is_only_port():
                self.first.become(State.FREE)
            # It is worth the wait of a few milliseconds.
            if self.first.leaving and self.first.state is State.IN_USE and self.first.heir is None:
                return self.first
            if self.first.state is State.FREE and self.first.heir is None:
                self._renew_first()
                self.first.changes.clear()
                return self.first
        bridge = profile.bridge or self.first.origin.bridge
        but = None if usable else self.first
        found = self._ports.make(lambda: self._maker.new(profile, refusal, queues=queues), self._release, bridge, but)
        found.changes.clear()
        return found

    def _expire(self, port: Port) -> None:
        """The port was parked for too long."""
        port.expired()
        try:
            self.free(port)
        except DeviceError as exc:
            log.error("%s", exc)

    def _release(self, port: Port) -> None:
        """As free(), for callers that have a turn. The rules of the first port stay until others come."""
        self._leave(port)
        if port.state in (State.IN_USE, State.PARKED):
            port.become(State.FREE)
        if port is not self.first and port.state is State.FREE:
            port.become(State.GONE)
            self._maker.close_port(port)

    def _leave(self, port: Port) -> None:
        """The client is about to lose the port: what it used of its limits goes on counting. Before anything else, so
        that no other port of its owner begins without."""
        port.filter.leave()
        if port.owner is not None:
            self._owners.keep(port.owner)

    def _renew_first(self) -> None:
        """If somebody has deleted the first port's TAP, make a new first port. Raises DeviceError if that fails."""
        if self._maker.renew_first():
            self.first.become(State.GONE)
            self.first = self._maker.first
            self._ports.add(self.first)
