"""What an owner's connections in several processes share: until when its rate has been waited for.

A memfd has a slot of 8 bytes for each owner with a rate. The port process says which owner has which slot; the
process that carries the frames has a SharedPacer on it. No charge is lost: a slot is changed under a record lock of its
own, and nobody waits for that: who finds it locked charges later. Read next: rate_limit.py, which has the arithmetic.

Source: fcntl(2), "Advisory record locking"; the locks of a process end with it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from weakref import WeakValueDictionary, finalize

from etherws.errors import NoPort
from etherws.kernel import sealed_memory
from etherws.tunnel.rate_limit import CREDIT, Pacer

#: Owners that can have a slot: those that are remembered (server/owners.py, OWNERS_MAX), and three times as many that
#: have ports. They take 320 KiB.
SLOTS = 40_960

#: Seconds of a monotonic clock, which all processes of a machine share.
_PAID = struct.Struct("=d")


class Slot:
    """One owner's. It is free for others when nobody has this object any more."""

    def __init__(self, number: int, memory: mmap.mmap) -> None:
        self.number, self._memory = number, memory

    @property
    def paid(self) -> float:
        """As Pacer.paid."""
        return _paid(self._memory, self.number * _PAID.size)


class Rates:
    """The memory with all slots."""

    def __init__(self, fd: int | None = None) -> None:
        """Make the memory or, with `fd`, use what another process has made. Raises OSError, ValueError if `fd` is no
        such memory; it is still open then. Who makes this closes it."""
        if fd is None:
            fd = sealed_memory.make("etherws-rates", SLOTS * _PAID.size)
        elif not sealed_memory.is_sealed(fd, SLOTS * _PAID.size):
            raise ValueError("not the memory of rates")
        self._memory = mmap.mmap(fd, SLOTS * _PAID.size)
        self.fd = fd
        self._used: set[int] = set()
        self._next = 0
        #: One for each slot that this process charges: connections that share it also share what is to be charged yet.
        self._pacers: WeakValueDictionary[int, SharedPacer] = WeakValueDictionary()
        #: Those that could not charge yet. They stay, also when their connections end.
        self._owing: set[SharedPacer] = set()

    def new(self, paid: float = 0.0) -> Slot:
        """A slot for an owner whose Pacer.paid is this. Raises NoPort if none is free."""
        if len(self._used) >= SLOTS:
            raise NoPort(f"{SLOTS} clients with a rate-up are remembered already; wait until some have been forgotten")
        while self._next in self._used:
            self._next = (self._next + 1) % SLOTS
        slot = Slot(self._next, self._memory)
        _PAID.pack_into(self._memory, self._next * _PAID.size, paid)
        self._used.add(slot.number)
        finalize(slot, self._used.discard, slot.number)
        return slot

    def pacer(self, number: int, rate: int) -> Pacer:
        """What keeps all connections of the owner with this slot to `rate` bits per second. Raises ValueError."""
        if not 0 <= number < SLOTS:
            raise ValueError(f"there is no slot {number}")
        pacer = self._pacers.get(number) or SharedPacer(self, self._memory, number * _PAID.size)
        self._pacers[number] = pacer
        pacer.rate = rate
        return pacer

    def close(self) -> None:
        """Close the descriptor and the mapping."""
        self._memory.close()
        os.close(self.fd)

    def owes(self, pacer: SharedPacer, *, so: bool) -> None:
        """Whether the pacer has something to charge yet."""
        (self._owing.add if so else self._owing.discard)(pacer)


class SharedPacer(Pacer):
    """As Pacer, with others in other processes."""

    def __init__(self, rates: Rates, memory: mmap.mmap, at: int) -> None:
        """On the slot at this place, in bytes."""
        super().__init__(1)
        self._rates, self._fd, self._memory, self._at = rates, rates.fd, memory, at
        # Seconds that could not be charged yet.
        self._owed = 0.0

    def wait(self, size: int, now: float) -> float:
        """As Pacer.wait()."""
        at, memory = self._at, self._memory
        charge = self._owed + size * 8 / self.rate
        if not charge:
            return max(0.0, _paid(memory, at) - now)
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _PAID.size, at)
        except OSError:
            # Another process is charging at this moment, or was stopped there.
            self._owed = charge
            self._rates.owes(self, so=True)
            return max(0.0, max(_paid(memory, at), now - CREDIT) + charge - now)
        paid = max(_paid(memory, at), now - CREDIT) + charge
        _PAID.pack_into(memory, at, paid)
        fcntl.lockf(self._fd, fcntl.LOCK_UN, _PAID.size, at)
        if self._owed:
            self._owed = 0.0
            self._rates.owes(self, so=False)
        return max(0.0, paid - now)


def _paid(memory: mmap.mmap, at: int) -> float:
    paid: float = _PAID.unpack_from(memory, at)[0]
    return paid
