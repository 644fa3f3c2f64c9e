"""Whose a limit is: an owner is an identity or, where the server asks for none, the source address of the client.

What an owner has used of its limits goes on counting when its connection ends: the source addresses that its ports have
learned, and what its rate-up has not paid for. Else a client would get all of it anew by connecting anew.

Pure. Plain data on the machine's monotonic clock, as values for the next process, too. Read next: ports.py,
kept_owners.py; kernel/learned.py, tunnel/rate_limit.py.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from typing import Any
from weakref import WeakValueDictionary

from etherws.addresses import source_key
from etherws.kernel.learned import LearnedAddresses
from etherws.kernel.rules import AGEING
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.shared_rates import Slot

#: Owners without a port that are remembered. One more, and the one that left first is forgotten. Each takes up to 1 KB.
OWNERS_MAX = 10_000

#: Addresses that are remembered of all owners without a port together. Each takes some 200 bytes.
ADDRESSES_MAX = 262_144


#: Seconds: more than any clock has.
TIME_MAX = 1e12

#: Seconds that a rate-up is still waited for, at most, in another process: more than it takes to pay for one message at
#: the lowest rate.
DEBT_MAX = 600.0


class Owner:
    """What one owner's connections share."""

    def __init__(self, key: tuple[str, str]) -> None:
        self.key = key
        self.learned = LearnedAddresses()
        #: Where the debt of its rate is, if several processes share it (tunnel/shared_rates.py).
        self.slot: Slot | None = None
        self._pacer: Pacer | None = None

    def pacer(self, rate: int) -> Pacer:
        """What keeps all connections of this owner together to `rate` bits per second."""
        if self._pacer is None:
            self._pacer = Pacer(rate)
        self._pacer.rate = rate
        return self._pacer

    @property
    def paid(self) -> float:
        """When what its rate-up has let pass has been waited for, by the monotonic clock; 0 if there was nothing."""
        if self.slot is not None:
            return self.slot.paid
        return self._pacer.paid if self._pacer else 0.0

    @paid.setter
    def paid(self, when: float) -> None:
        # Whoever uses it says the rate.
        self.pacer(1).paid = when


class Owners:
    """Finds the owner of a client. Owners that somebody has stay the same ones; a number of others is remembered."""

    def __init__(self) -> None:
        self._all: WeakValueDictionary[tuple[str, str], Owner] = WeakValueDictionary()
        #: The latest last, with how many addresses each had then.
        self._kept: OrderedDict[Owner, int] = OrderedDict()
        self._addresses = 0

    def of(self, identity: str | None, address: str) -> Owner:
        """The owner of a client that has this identity, or else this address."""
        return self._of(("address", source_key(address)) if identity is None else ("identity", identity))

    def _of(self, key: tuple[str, str]) -> Owner:
        owner = self._all.get(key) or Owner(key)
        self._all[key] = owner
        self.keep(owner)
        return owner

    def to_values(self, now: float, room: int) -> list[Any]:
        """What the owners have used, for restore(): those that were here last, as many as fit into `room` bytes of
        JSON. What ports in use have learned is not among it."""
        found = []
        for owner in reversed(self._kept):
            learned, paid = owner.learned.to_values(now), owner.paid
            # Each worker can write to the memory where it is. One that is broken takes no other owner's along.
            paid = paid if abs(paid) <= TIME_MAX else now
            if learned or paid > now:
                values = [*owner.key, paid, learned]
                room -= len(json.dumps(values)) + 1
                if room < 0:
                    break
                found.append(values)
        return found[::-1]

    def restore(self, values: object, now: float) -> None:
        """What the owners of another process have used: see to_values(). Raises ValueError if this is nothing of the
        kind; what was read before counts."""
        for one in _listed(values, OWNERS_MAX):
            kind, name, paid, learned = _listed(one, 4, 4)
            if kind not in ("address", "identity") or not isinstance(name, str):
                raise ValueError("an owner without a name")
            owner = self._of((kind, name))
            # A clock that has gone back would make it wait for ever.
            owner.paid = min(_time(paid), now + DEBT_MAX)
            for entry in _listed(learned, ADDRESSES_MAX):
                text, until, port = _listed(entry, 3, 3)
                if not (isinstance(text, str) and re.fullmatch("[0-9a-f]{12}", text) and type(port) is int):
                    raise ValueError("an address that is not valid")
                owner.learned.restore(bytes.fromhex(text), min(_time(until), now + AGEING), port)
            self.keep(owner)

    def keep(self, owner: Owner) -> None:
        """One of the owner's ports comes or goes: remember this owner for longer than those before."""
        self._addresses -= self._kept.pop(owner, 0)
        self._kept[owner] = len(owner.learned)
        self._addresses += self._kept[owner]
        while len(self._kept) > OWNERS_MAX or (self._addresses > ADDRESSES_MAX and len(self._kept) > 1):
            self._addresses -= self._kept.popitem(last=False)[1]


def _listed(value: Any, most: int, least: int = 0) -> list[Any]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise ValueError("no list, or one of another length")
    return value


def _time(value: Any) -> float:
    # Also false for what is no number (NaN).
    if type(value) not in (int, float) or not abs(value) <= TIME_MAX:
        raise ValueError("a time that is not valid")
    return float(value)
