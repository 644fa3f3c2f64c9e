"""Who may not join now, though a password or a certificate would let him in: whom the operator has ended, and all
while the server is being drained.

Pure. The process that has the ports has one, so it holds whichever worker a client comes to. Read next: dismissal.py,
which fills it; ports.py, which asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from etherws.addresses import source_key
from etherws.errors import Refused

#: Identities and addresses that are kept out at once. One more, and the one whose time ends first is let in again. Only
#: an operator adds one.
SHUT_OUT_MAX = 1000

#: Seconds that somebody is kept out at most: a day (observe/orders.py, SECONDS_MAX).
SECONDS_MAX = 86_400.0

#: Seconds that a client should wait before it tries a server again that is being drained: it stops soon, and another
#: one takes its place. Who has another --uri does not wait.
DRAINING_RETRY = 30


class Gate:
    """Of one server."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        #: Until when, by ("identity", name) or ("address", source key).
        self._until: dict[tuple[str, str], float] = {}
        #: Whether nobody may join any more.
        self.draining = False

    def shut_out(self, identities: Iterable[str], addresses: Iterable[str], seconds: float) -> None:
        """Keep these clients out for so many seconds. Of an IPv6 address, its /64 counts: who has one address has all
        of it."""
        until = self._clock() + seconds
        keys = [*(("identity", each) for each in identities), *(("address", source_key(each)) for each in addresses)]
        for key in keys:
            self._until[key] = max(until, self._until.pop(key, until))
        self._forget()
        while len(self._until) > SHUT_OUT_MAX:
            del self._until[min(self._until, key=self._until.__getitem__)]

    def check(self, identity: str | None, address: str) -> None:
        """Raises Refused if this client may not join now: 503 while the server is being drained, 403 if the operator
        has ended it. Both say when to try again."""
        if self.draining:
            raise Refused(
                "503 Service Unavailable",
                "this server is draining: it takes no new clients; connect to another one",
                [("Retry-After", str(DRAINING_RETRY))],
                kind="draining",
            )
        if not self._until:
            return
        keys = [("address", source_key(address))] + ([] if identity is None else [("identity", identity)])
        left = max(self._until.get(key, 0.0) for key in keys) - self._clock()
        if left > 0:
            raise Refused(
                "403 Forbidden",
                f"the operator of this server has ended this client's tunnel; it may join again in {math.ceil(left)} s",
                [("Retry-After", str(math.ceil(left)))],
                kind="ended by the operator",
            )

    @property
    def shut_out_now(self) -> int:
        """How many are kept out."""
        self._forget()
        return len(self._until)

    def to_values(self) -> list[Any]:
        """Who is kept out, for restore() in another process of this machine."""
        self._forget()
        return [[*key, until] for key, until in self._until.items()]

    def restore(self, values: object) -> None:
        """Keep out whom another process has kept out: see to_values(). Raises ValueError if this is nothing of the
        kind; what was read before counts."""
        if not isinstance(values, list) or len(values) > SHUT_OUT_MAX:
            raise ValueError("no list of those who are kept out")
        latest = self._clock() + SECONDS_MAX
        for one in values:
            match one:
                case ["identity" | "address" as kind, str(name), int() | float() as until]:
                    # A clock that has gone back would keep them out for ever.
                    self._until[kind, name] = min(until, latest)
                case _:
                    raise ValueError("nobody who is kept out")

    def _forget(self) -> None:
        now = self._clock()
        self._until = {key: until for key, until in self._until.items() if until > now}
