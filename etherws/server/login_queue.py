"""Which login is checked next: one password at a time, and the likely honest ones first.

A password's check takes tens of milliseconds, and strangers can ask for as many as they like. LoginLimiter counts wrong
passwords by source, LoginQueue orders the logins that wait. Both go by the source alone: by the names that are tried, a
stranger could find out which names there are. Read next: authenticate.py, which checks them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from gevent.event import AsyncResult

from etherws.addresses import source_key
from etherws.errors import Refused
from etherws.server.presence import UNKNOWN, Presence

#: Failures that one source may make at once, and the seconds after which it may make one more.
FREE_FAILURES, FAILURE_INTERVAL = 5, 5.0

#: Sources whose failures are remembered, and sources whose success is. Past that, the oldest is forgotten.
MAX_SOURCES = 10_000

#: Logins that wait for their check. 64 right ones take 4 s at bcrypt's usual cost.
MAX_WAITING_LOGINS = 64

#: Seconds that a login waits at most: etherws's client gives up after ten (settings.py, Retry).
LOGIN_TIMEOUT = 10.0


class Limiter(Protocol):
    """Counts failed logins. With several workers, one process counts those of all."""

    def wait(self, address: str, now: float) -> float:
        """As LoginLimiter.wait(). Raises Refused: 503 if nobody can tell."""

    def failed(self, address: str, now: float) -> None:
        """As LoginLimiter.failed()."""


class LoginLimiter:
    """Counts failed logins by source: after FREE_FAILURES, one attempt each FAILURE_INTERVAL seconds is allowed."""

    def __init__(self) -> None:
        # For each source, the time at which its last failure is forgotten. Each failure adds FAILURE_INTERVAL to it.
        self._forgotten_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Seconds until an attempt from `address` is allowed; 0 if it is allowed now."""
        forgotten_at = self._forgotten_at.get(source_key(address), now)
        return max(0.0, forgotten_at - now - (FREE_FAILURES - 1) * FAILURE_INTERVAL)

    def failed(self, address: str, now: float) -> None:
        """Count a failed attempt from `address`."""
        source = source_key(address)
        forgotten_at = max(self._forgotten_at.get(source, now), now)
        _remember(self._forgotten_at, source, forgotten_at + FAILURE_INTERVAL)


@dataclass(eq=False)
class _Login:
    """A login that waits. `turn` is set to True when it is its turn, to False when it is refused."""

    source: str
    number: int
    turn: AsyncResult[bool] = field(default_factory=AsyncResult)


class LoginQueue:
    """The logins that wait for their check. One has the turn.

    First come sources that have logged in before, then those without a login that led to nothing, then those with the
    fewest logins in the queue, and of equals the one that came last. A login leads to nothing if it is wrong, and also
    if it never has its turn: each address of a flood stands in a new client's way only once.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, None] = OrderedDict()
        # How many logins of each source have led to nothing since its last success.
        self._vain: OrderedDict[str, int] = OrderedDict()
        self._waiting: list[_Login] = []
        self._busy = False
        # Whether the login that has the turn was right.
        self._right = False
        self._count = 0

    @contextmanager
    def turn(self, address: str, presence: Presence = UNKNOWN) -> Iterator[None]:
        """Block this greenlet until it is the turn of a login from `address`; the next one's comes after the block.

        Raises Refused: 503 if too many others come first; ClientGone if the client hangs up before its turn.
        """
        login = _Login(source_key(address), self._count)
        self._count += 1
        try:
            self._enter(login)
            with presence.required():
                login.turn.wait(LOGIN_TIMEOUT)
            if not login.turn.value:
                raise Refused(
                    "503 Service Unavailable", "too many logins at once; try again later", [("Retry-After", "2")]
                )
            self._right = False
            yield
        finally:
            if not (login.turn.value and self._right):
                _remember(self._vain, login.source, self._vain.get(login.source, 0) + 1)
            self._leave(login)

    def succeeded(self, address: str) -> None:
        """The login from `address` that has the turn was right: the next ones of this source come first."""
        source = source_key(address)
        _remember(self._known, source, None)
        self._vain.pop(source, None)
        self._right = True

    def waiting(self) -> int:
        """How many logins wait, without the one that has the turn."""
        return len(self._waiting)

    def _enter(self, login: _Login) -> None:
        if not self._busy:
            self._busy = True
            login.turn.set(True)
            return
        self._waiting.append(login)
        if len(self._waiting) > MAX_WAITING_LOGINS:
            last = max(self._waiting, key=self._rank)
            self._waiting.remove(last)
            last.turn.set(False)

    def _leave(self, login: _Login) -> None:
        if login in self._waiting:
            self._waiting.remove(login)
        elif login.turn.value:
            self._busy = bool(self._waiting)
            if self._busy:
                following = min(self._waiting, key=self._rank)
                self._waiting.remove(following)
                following.turn.set(True)

    def _rank(self, login: _Login) -> tuple[bool, bool, int, int]:
        """The login with the lowest rank is next; the one with the highest has to go when the queue is full."""
        vain = self._vain.get(login.source, 0)
        # A source with many wrong passwords is a stranger, even if somebody behind the same address has logged in.
        known = login.source in self._known and vain < FREE_FAILURES
        same = sum(other.source == login.source for other in self._waiting)
        # Not by their number: an honest client that tries again would be the last of all.
        # Of equals the one that came last: if more come than can be checked, those that came first have all waited so
        # long that their clients are about to give up.
        return not known, vain > 0, same, -login.number


def _remember(table: OrderedDict[str, Any], source: str, value: Any) -> None:
    """Set the source's value; forget the oldest source if there are too many."""
    table[source] = value
    table.move_to_end(source)
    if len(table) > MAX_SOURCES:
        table.popitem(last=False)
