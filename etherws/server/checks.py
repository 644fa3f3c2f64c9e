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
from etherws.errors import CheckRefused
from etherws.server.owners import Owner
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
    """One that was let begin. `owner` is whose it is; end() must be called once, more often does no harm."""

    def __init__(self, owner: Owner, end: Callable[[], None]) -> None:
        self.owner, self._end = owner, end
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

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        #: Since when one measures; None if none does.
        self._since: float | None = None
        self._idle: Counter[tuple[str, str]] = Counter()
        # Until when each owner has paid for what it has measured.
        self._paid: OrderedDict[tuple[str, str], float] = OrderedDict()

    def begin(self, kind: str, owner: Owner) -> Check:
        """Let a check begin, of the kind features.CHECK or features.IDLE. Raises CheckRefused."""
        if kind == features.IDLE:
            if self._idle.total() >= IDLE_MAX or self._idle[owner.key] >= IDLE_OWNER_MAX:
                raise CheckRefused("too many silent connections of checks are open; try again later", 60)
            self._idle[owner.key] += 1
            return Check(owner, lambda: self._was_idle(owner.key))
        now = self._clock()
        if self._since is not None:
            left = math.ceil(max(1.0, self._since + SECONDS_MAX - now))
            raise CheckRefused(f"another check is running, and one runs at a time; it ends within {left} s", left)
        if (left := math.ceil(self._paid.get(owner.key, now) - now - CREDIT)) > 0:
            raise CheckRefused(f"you have measured for a long time; others are next. Try again in {left} s", left)
        self._since = now
        return Check(owner, lambda: self._measured(owner.key))

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
