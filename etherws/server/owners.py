"""Whose a limit is: an owner is an identity or, where the server asks for none, the source address of the client.

What an owner has used of its limits goes on counting when its connection ends: the source addresses that its ports have
learned, and what its rate-up has not paid for. Else a client would get all of it anew by connecting anew.

Pure. Plain data on the machine's monotonic clock: one process's is lost with it. Read next: ports.py,
kernel/learned.py, tunnel/rate_limit.py.
"""

from __future__ import annotations

from collections import OrderedDict
from weakref import WeakValueDictionary

from etherws.addresses import source_key
from etherws.kernel.learned import LearnedAddresses
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.shared_rates import Slot

#: Owners without a port that are remembered. One more, and the one that left first is forgotten. Each takes up to 1 KB.
OWNERS_MAX = 10_000

#: Addresses that are remembered of all owners without a port together. Each takes some 200 bytes.
ADDRESSES_MAX = 262_144


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


class Owners:
    """Finds the owner of a client. Owners that somebody has stay the same ones; a number of others is remembered."""

    def __init__(self) -> None:
        self._all: WeakValueDictionary[tuple[str, str], Owner] = WeakValueDictionary()
        #: The latest last, with how many addresses each had then.
        self._kept: OrderedDict[Owner, int] = OrderedDict()
        self._addresses = 0

    def of(self, identity: str | None, address: str) -> Owner:
        """The owner of a client that has this identity, or else this address."""
        key = ("address", source_key(address)) if identity is None else ("identity", identity)
        owner = self._all.get(key) or Owner(key)
        self._all[key] = owner
        self.keep(owner)
        return owner

    def keep(self, owner: Owner) -> None:
        """One of the owner's ports comes or goes: remember this owner for longer than those before."""
        self._addresses -= self._kept.pop(owner, 0)
        self._kept[owner] = len(owner.learned)
        self._addresses += self._kept[owner]
        while len(self._kept) > OWNERS_MAX or (self._addresses > ADDRESSES_MAX and len(self._kept) > 1):
            self._addresses -= self._kept.popitem(last=False)[1]
