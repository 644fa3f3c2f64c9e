"""Which checks (``etherws check``) may run at a time, and how often: one that measures for the whole server.

Pure. A check has no port; it is told here when it begins and when it has ended, in the one process that has the ports.
What it does is in responder.py. Read next: owners.py, whose rates hold for it, too.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from time import monotonic

from etherws import features
from etherws.errors import Refused
from etherws.server.gate import Gate
from etherws.server.owners import Owner, Owners
from etherws.tunnel.rate_limit import Pacer

#: Seconds of a check that measures: it takes about ten, and more on a path of long round trips. Others wait for it.
SECONDS_MAX = 30.0

#: Seconds for which a connection may be silent to find out how long one lives: longer than the 350 s of AWS's network
#: load balancer and NAT gateway, the longest of the usual limits that are below an hour.
IDLE_SECONDS_MAX = 620.0

#: Silent connections at a time, of all owners and of one. Each costs some 20 KiB and no time.
IDLE_MAX, IDLE_OWNER_MAX = 32, 8

#: An owner may measure for one part of time in so many, and for so many seconds at first: four checks one after the
#: other, but nobody keeps the others from theirs for ever.
PART, CREDIT = 4, 160.0

#: Owners whose checks are remembered.
OWNERS_MAX = 1000


class Check:
    """One that was let begin. `owner` is whose it is, `full` whether its client would get no port for a tunnel now;
    end() must be called once, more often does no harm."""

    def __init__(self, owner: Owner, full: bool, end: Callable[[], None]) -> None:
        self.owner, self.full, self._end = owner, full, end
        self._ended = False

    def pacer(self, rate: int) -> Pacer:
        """What keeps the owner's connections, and this, to `rate` bits per second together."""
        return self.owner.pacer(rate)

    def end(self) -> None:
        """It has ended."""
        if not self._ended:
            self._ended = True
            self._end()


class Checks:
    """All of one server."""

    def __init__(
        self,
        owners: Owners,
        gate: Gate,
        clock: Callable[[], float] = monotonic,
        full: Callable[[str | None, str], bool] = lambda *_: False,
    ) -> None:
        """`owners` finds whose a check is, `gate` knows who may not join now. `clock` gives seconds. `full` says
        whether there is no port for a client of this identity and address."""
        self._owners, self._gate, self._clock, self._full = owners, gate, clock, full
        #: Since when one measures; None if none does.
        self._since: float | None = None
        self._idle: Counter[tuple[str, str]] = Counter()
        # Until when each owner has paid for what it has measured.
        self._paid: OrderedDict[tuple[str, str], float] = OrderedDict()

    def begin(self, kind: str, identity: str | None, address: str) -> Check:
        """Let a client's check begin, of the kind features.CHECK or features.IDLE. The caller calls end(). Raises
        Refused, which says when to try again."""
        self._gate.check(identity, address)
        owner, full = self._owners.of(identity, address), self._full(identity, address)
        if kind == features.IDLE:
            if self._idle.total() >= IDLE_MAX or self._idle.get(owner.key, 0) >= IDLE_OWNER_MAX:
                raise _refused("too many silent connections of checks are open; try again later", 60)
            self._idle[owner.key] += 1
            return Check(owner, full, lambda: self._was_idle(owner.key))
        now = self._clock()
        if self._since is not None:
            left = math.ceil(max(1.0, self._since + SECONDS_MAX - now))
            raise _refused(f"another check is running, and one runs at a time; it ends within {left} s", left)
        if (left := math.ceil(self._paid.get(owner.key, now) - now - CREDIT)) > 0:
            raise _refused(f"this client has measured for a long time; try again in {left} s", left)
        self._since = now
        return Check(owner, full, lambda: self._measured(owner.key))

    def _was_idle(self, key: tuple[str, str]) -> None:
        self._idle[key] -= 1
        if not self._idle[key]:
            del self._idle[key]

    def _measured(self, key: tuple[str, str]) -> None:
        assert self._since is not None
        paid = max(self._paid.pop(key, 0.0), self._since)
        self._paid[key] = paid + PART * (self._clock() - self._since)
        self._since = None
        if len(self._paid) > OWNERS_MAX:
            self._paid.popitem(last=False)


def _refused(text: str, wait: int) -> Refused:
    return Refused("503 Service Unavailable", text, [("Retry-After", str(wait))], kind="check")
