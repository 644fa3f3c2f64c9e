"""The members of a link: the connections by which one client has one port (docs/wire.rst, "A link").

Each has a number and, for it, a queue of the port's TAP. All else is the port's: owner, rules, rates. A connection with
a number that is in use takes over its queue. Which port a client gets, and when it is kept or free, is decided in
ports.py, which gives a Member in place of a port. Read next: port.py; tunnels.py and workers/worker_link.py, which
have the sessions.
"""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import monotonic, time

from etherws.access.policy import Profile
from etherws.errors import DeviceError, EtherwsError, Refused
from etherws.features import LINK_MEMBERS_MAX, Membership
from etherws.server import comings
from etherws.server.comings import Parting
from etherws.server.member import Member, replaced
from etherws.server.port import ClientKey, Port, State, place_of
from etherws.tunnel.tap import Tap

log = logging.getLogger(__name__)

#: The reason of frames that wait in a queue whose connection ends.
QUEUE_ENDED = "connection ended"


@dataclass
class _Place:
    """What has one number: a queue, the member that sends from it, and one that is about to."""

    queue: Tap
    serving: Member | None = None
    coming: Member | None = None


class Members:
    """All members of one link, from the first to the last: for each number two whose session has begun, at most."""

    def __init__(self, port: Port, membership: Membership) -> None:
        """The client that has this port founds a link."""
        self.port, self.client, self.id = port, port.client, membership.id
        #: How many it may have.
        self.of = min(membership.of, LINK_MEMBERS_MAX) if port.tap.multi_queue else 1
        #: The one that ended last, once there is none. Weak, since a member has this object: nobody would free the two.
        self.last: Callable[[], Member | None] = lambda: None
        #: What those that have ended have carried; and whether the last of them was lost, but for those that were
        #: replaced before.
        self.parting, self.lost = Parting(), False
        self.founded = time()
        self._places: dict[int, _Place] = {}
        # Those that were replaced, by their number.
        self._retired: dict[int, Member] = {}
        # In the order of their coming.
        self._all: dict[Member, None] = {}
        self._began: float | None = None
        # Whether it ends: it gets no more members.
        self._closed = False
        # Whether the kernel gives the port's own descriptor no packets.
        self._detached = False
        self._spare = port.tap.spare_queue() if self.of > 1 else None
        port.members, port.evict = self, self.evict
        port.tap.stop_carrier_timeout()
        port.on_failure(self.fail)

    def __iter__(self) -> Iterator[Member]:
        """Those that carry frames, in the order of their numbers."""
        return (place.serving for _, place in sorted(self._places.items()) if place.serving)

    def has(self, member: Member) -> bool:
        """Whether this one is still there."""
        return member in self._all

    def found(self, membership: Membership, evict: Callable[[], None]) -> Member:
        """The first member. Raises DeviceError."""
        # The port may allow fewer than the client wants.
        number = min(membership.member, self.of - 1)
        return self.add(membership._replace(member=number), evict, joining=False)

    def add(self, membership: Membership, evict: Callable[[], None], *, joining: bool) -> Member:
        """One more member, or one that is to replace another. Raises DeviceError if there is no queue for it, and
        Refused if the link has ended."""
        if joining and (self._closed or not self._there()):
            raise no_link(membership)
        number = membership.member
        place = self._places.get(number) or _Place(self._queue())
        try:
            tap = place.queue.again(self._spare)
        except DeviceError as exc:
            if number not in self._places:
                self._drop(place)
            raise DeviceError(f"{self.port.tap.name}: no further connection: {exc}") from exc.__cause__ or exc
        self._places[number] = place
        member = Member(self, membership._replace(of=self.of), tap, evict)
        member.joining = joining
        self._all[member] = None
        if place.coming is not None:
            place.coming.fail(replaced())
        place.coming = member
        return member

    def began(self, member: Member) -> None:
        """The member's session is about to carry frames: it has the queue from now on."""
        number = member.membership.member
        place = self._places.get(number)
        if place is None or place.coming is not member:
            return
        before, place.serving, place.coming = place.serving, member, None
        member.has_begun = True
        if before is not None:
            self._end_retired(number)
            self._retired[number] = before
            before.retire()
        if self._began is None:
            self._began = monotonic()
        if member.joining:
            comings.member_joined(self.client, self.port.tap.name, member.membership)

    def leave(self, member: Member) -> bool:
        """The member uses the port no longer; return whether it was the last one. The port's own queue is then as it
        was before the link."""
        if member not in self._all:
            return False
        # Its worker may have died.
        member.record(Parting(reason="the process that carried it has ended"))
        del self._all[member]
        member.close()
        number = member.membership.member
        if self._retired.get(number) is member:
            del self._retired[number]
        elif (place := self._places.get(number)) is not None:
            place.serving = None if place.serving is member else place.serving
            place.coming = None if place.coming is member else place.coming
            if place.serving is None and place.coming is None:
                self._end_retired(number)
                del self._places[number]
                self._drop(place)
        if self._all:
            return False
        self.last = weakref.ref(member)
        self._tell_end()
        self._restore()
        return True

    def record(self, member: Member, parting: Parting) -> None:
        """A member's session has ended: this is what it has carried. The last one ends the link."""
        self.parting.add(parting, replaced=member.is_retired)
        if self._there():
            comings.member_left(self.client, self.port.tap.name, member.membership, parting, self._there)
        else:
            self._tell_end()

    def to_join(self, membership: Membership) -> bool:
        """Whether a connection may join as this member; not if the link is over, and can be founded again. Raises
        Refused."""
        if not self._there():
            return False
        if self._closed:
            raise no_link(membership)
        if membership.member >= self.of:
            raise Refused("409 Conflict", f"this link has {self.of} connections at most", kind="no such link")
        return True

    def evict(self) -> None:
        """Another client is to have the port, or the same one by another link: end all sessions."""
        self._closed = True
        for member in list(self._all):
            member.evict()

    def fail(self, reason: EtherwsError) -> None:
        """End all sessions, for this reason."""
        self._closed = True
        for member in list(self._all):
            member.fail(reason)

    def close(self) -> None:
        """The port is gone: close all that this has opened."""
        self._closed = True
        for member in self._all:
            member.close()
        for place in self._places.values():
            if place.queue is not self.port.tap:
                place.queue.close()
        self._all.clear()
        self._places.clear()
        self._retired.clear()
        self._restore()

    def hold(self) -> None:
        """The rules are not in force: no member's frames may pass."""
        for member in self._all:
            if member.filter.hold is not None:
                member.filter.hold()

    def _end_retired(self, number: int) -> None:
        """Nothing more of use comes by the one that had this number before."""
        if (member := self._retired.pop(number, None)) is not None:
            member.fail(replaced())

    def _there(self) -> int:
        return sum(not each.has_ended for each in self._all)

    def _tell_end(self) -> None:
        if self._began is not None:
            seconds, self._began = monotonic() - self._began, None
            name, drops = self.port.tap.present_name(), self.port.filter.drops()
            comings.link_left(self.client, name, seconds, self.parting, drops)

    def _queue(self) -> Tap:
        """A queue for one more number. Raises DeviceError."""
        if any(place.queue is self.port.tap for place in self._places.values()):
            return self.port.tap.queue()
        if self._detached:
            self.port.tap.attach()
            self._detached = False
        return self.port.tap

    def _drop(self, place: _Place) -> None:
        """Nobody has this number any more: the kernel gives its flows to the other queues."""
        if place.queue is not self.port.tap:
            # Another process may still have it open.
            lost = place.queue.detach()
            place.queue.close()
        elif self._places:
            lost, self._detached = self.port.tap.detach(), True
        else:
            return
        if lost:
            self.parting.drops[QUEUE_ENDED] += lost

    def _restore(self) -> None:
        """Have the kernel give packets to the port's own descriptor again."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        try:
            if self._detached:
                self._detached = False
                self.port.tap.attach()
        except DeviceError as exc:
            log.warning("%s", exc)


def to_join(ports: Iterable[Port], client: ClientKey, profile: Profile, membership: Membership) -> Members | None:
    """The link that this connection of a client is to join; None if it founds one, or the client has the link but not
    one connection by which it is there. Raises Refused, 409, if this server does not have the link."""
    if membership.new:
        return None
    for port in ports:
        found = port.members
        if (
            found is not None
            and client.resume is not None
            and found.id == membership.id
            and found.client == client == port.client
            and port.state in (State.IN_USE, State.PARKED)
            and place_of(port.profile) == place_of(profile)
        ):
            return found if found.to_join(membership) else None
    raise no_link(membership)


def given_back(port: Port | Member, carrier_timeout: float) -> Port | None:
    """The port that is not in use any more, when a session has given back what it had of it; None as long as others of
    its link have it, or a client that came later. `carrier_timeout` is as for Tap.start_carrier_timeout()."""
    if isinstance(port, Port):
        return port
    if port.members.leave(port):
        port.port.tap.start_carrier_timeout(carrier_timeout)
        return port.port
    return port.port if port.state is State.PARKED else None


@contextlib.contextmanager
def ended_by_failure(port: Port) -> Iterator[None]:
    """If the block raises DeviceError, the port's rules are not in force: no frame may pass by any connection of its
    link, and all end."""
    try:
        yield
    except DeviceError as exc:
        if port.members is not None:
            port.members.hold()
            port.members.fail(exc)
        raise


def no_link(membership: Membership) -> Refused:
    """The refusal of a member of a link that is not here."""
    return Refused(
        "409 Conflict",
        f"this server does not have the link that connection {membership.member} belongs to; a load balancer may have"
        " sent it here: have it keep a client's connections on one server (by source address), or use --connections 1",
        kind="no such link",
    )
