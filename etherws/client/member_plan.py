"""When each connection of a link is made, made again or replaced. Pure: it neither connects nor waits.

A link has members, which are connections with numbers from 0. One attempt to connect is made at a time, in the order in
which they are due. While attempts fail, there is one for all members, and not one for each: most likely they fail for
the same reason. Read next: members.py, which does what this says; backoff.py, the waits.
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from etherws.client.backoff import Backoff
from etherws.close_codes import CloseCode
from etherws.errors import ConnectError, NoSuchLink, NotAdmitted
from etherws.features import Membership
from etherws.settings import ClientSettings, Retry

#: A member is replaced at a random part of its greatest age between these two. The rest is for the attempt to connect,
#: which must succeed before the old connection is cut. At random, since all members of a link are about the same age.
REPLACE_FROM, REPLACE_UNTIL = 0.75, 0.95

#: Seconds to wait at least after the server has refused a further member, and the longest such wait. It refuses the
#: next one most likely, too, and the link goes on without it.
REFUSED_WAIT, REFUSED_WAIT_MAX = 30.0, 240.0


@dataclass
class _Member:
    """What is to be done for one number. `due` is when, by monotonic(); math.inf for nothing."""

    backoff: Backoff
    due: float
    up: bool = False


class MemberPlan:
    """The members of one link, from the time when the first one is there until there is none."""

    def __init__(
        self,
        count: int,
        max_age: float,
        retry: Retry,
        *,
        clock: Callable[[], float] = monotonic,
        chance: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`count` members are to be there. The first one is, the others are due. `max_age` is in seconds, 0 for any
        age. `chance` returns a number between two."""
        self._max_age, self._clock, self._chance = max_age, clock, chance
        self._failing = Backoff(retry)
        self._refusing = Backoff(Retry(REFUSED_WAIT, REFUSED_WAIT_MAX))
        # No attempt is made before, by the clock; and whether a refusal is the reason.
        self._not_before, self._refused = 0.0, False
        self._members = [_Member(Backoff(retry), clock()) for _ in range(count)]
        self.joined(0)

    @property
    def count(self) -> int:
        """How many members are to be there."""
        return len(self._members)

    def next(self) -> tuple[int, float]:
        """The number of the member that is to be connected next, and in how many seconds; math.inf for never."""
        number = min(range(self.count), key=lambda each: self._members[each].due)
        due = max(self._members[number].due, self._not_before)
        return number, max(0.0, due - self._clock())

    def joined(self, number: int) -> None:
        """This member has a new connection."""
        age = self._max_age * self._chance(REPLACE_FROM, REPLACE_UNTIL) if self._max_age else math.inf
        member = self._members[number]
        member.up, member.due = True, self._clock() + age
        # The server lets us in: the next one need not wait.
        self._failing.reset()
        self._refusing.reset()
        self._not_before, self._refused = 0.0, False

    def failed(self, error: ConnectError) -> None:
        """The attempt to connect the next member has failed. If it was to replace one, that one is still there."""
        self._refused = isinstance(error, NotAdmitted | NoSuchLink) or error.wait > 0
        wait = self._refusing.next(max(REFUSED_WAIT, error.wait)) if self._refused else self._failing.next()
        self._not_before = self._clock() + wait

    def lost(self, number: int, code: int | None, seconds: float, *, at_once: bool = False) -> None:
        """The connection of this member has ended after so many seconds, by a Close of this code or none. It is made
        again `at_once`, or after a wait."""
        member = self._members[number]
        member.backoff.session_ended(code, seconds)
        # A server that ends one of ours for a rule of its own would do so again.
        extra = REFUSED_WAIT if code == CloseCode.POLICY_VIOLATION else 0.0
        member.up, member.due = False, self._clock() + (0.0 if at_once else member.backoff.next(extra))

    def hurry(self, *, by_user: bool) -> None:
        """Connect at once what is missing. Without `by_user` the machine's network has changed, which is no reason to
        ask a server again that has refused us."""
        if self._refused and not by_user:
            return
        self._not_before = 0.0
        for member in self._members:
            if not member.up:
                member.backoff.reset()
                member.due = self._clock()


def founding(settings: ClientSettings, several_queues: bool) -> Membership | None:
    """What the first connection of a link offers, with a new name for the link; None if it is the only one for as long
    as it lasts. `several_queues` is whether the interface can have more than one."""
    of = settings.connections if several_queues else 1
    if of == 1 and not settings.max_age:
        return None
    # 22 characters: docs/wire.rst, "A link".
    return Membership(0, of, secrets.token_urlsafe(16), new=True)


def why_fewer(settings: ClientSettings, device: str, several_queues: bool, server: str, given: int) -> str:
    """What the log says if a link has fewer connections than `settings` ask for, or cannot replace them; empty if all
    is as it was asked for. `given` is how many the server gives, 0 if it knows no links. `several_queues` is whether
    the interface `device` can have more than one."""
    asked = settings.connections
    if asked == 1 and not settings.max_age:
        return ""
    if asked > 1 and not several_queues:
        return (
            f"{device} can have one queue only, so the link has one connection and not {asked}; delete it, and make it"
            f" anew by: ip tuntap add dev {device} mode tap multi_queue user root"
        )
    if not given:
        unused = "--max-age is not used" if asked == 1 else f"the link has one connection and not {asked}"
        why = (
            "version 1 of the wire, which --wire 1 asks for, has no links"
            if settings.wire < 2
            else "the server is older, or speaks version 1 of the wire (--wire 1), or a proxy on the way removes the"
            " header Etherws-Features"
        )
        return f"{server}: {unused}: {why}"
    if given >= asked:
        return ""
    why = "; its interface may be a persistent one that was made without multi_queue" if given == 1 else ""
    return f"{server}: the server gives the link {given} of {asked} connections{why}"
