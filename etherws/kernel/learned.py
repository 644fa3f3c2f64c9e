"""What one owner's ports have learned: source addresses that go on counting for the owner when a port is gone.

A port's set of addresses is in the kernel while the port is in use. When its client has gone, the addresses come here,
with the time that each has left, and the owner's next port begins with them. So nobody gets new addresses by connecting
anew. All ports and this together hold `macs` addresses for each port that the owner had at once, and no more.

Pure. Read next: port_filter.py, which reads and fills the kernel's sets; server/owners.py, which says who an owner is.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import NamedTuple


class _Entry(NamedTuple):
    #: When it is forgotten, by the caller's clock, in seconds.
    until: float
    #: Addresses of one port have the same number.
    port: int


class LearnedAddresses:
    """The addresses of one owner that no port in use has. An address is its 6 bytes; clocks are in seconds."""

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}
        self._ports = 0

    def __len__(self) -> int:
        return len(self._entries)

    def give(self, addresses: Mapping[bytes, float], now: float) -> None:
        """A port is gone, which had these addresses, each for so many seconds more."""
        self._forget(now)
        self._ports += 1
        for address, left in addresses.items():
            known = self._entries.get(address)
            self._entries[address] = _Entry(max(now + left, known.until if known else now), self._ports)

    def take(self, room: int, source: bytes, now: float) -> dict[bytes, float]:
        """Addresses for a new port that may have `room` of them, each with the seconds that it has left.

        `source` is what the port's client sends from first. If it is known, it is among them, with those of its port;
        for the rest, the latest are taken.
        """
        self._forget(now)
        own = self._entries.get(source)

        def rank(address: bytes) -> tuple[bool, bool, float]:
            entry = self._entries[address]
            return address == source, own is not None and entry.port == own.port, entry.until

        chosen = heapq.nlargest(room, self._entries, rank)
        return {address: self._entries.pop(address).until - now for address in chosen}

    def to_values(self, now: float) -> list[tuple[str, float, int]]:
        """All that is in it, for restore(): address, when it is forgotten, and a number for each port."""
        self._forget(now)
        return [(address.hex(), entry.until, entry.port) for address, entry in self._entries.items()]

    def restore(self, address: bytes, until: float, port: int) -> None:
        """One entry of to_values() of another process."""
        self._entries[address] = _Entry(until, port)
        self._ports = max(self._ports, port)

    def _forget(self, now: float) -> None:
        self._entries = {address: entry for address, entry in self._entries.items() if entry.until > now}
