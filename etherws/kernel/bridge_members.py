"""Which interfaces belong in each bridge, and which of them wait for theirs.

Pure bookkeeping, so that a message of the kernel about a bridge is not compared with every interface. Read next:
bridges.py, which uses it; membership.py.
"""

from __future__ import annotations

from collections import Counter

from etherws.kernel.membership import Membership, State


class BridgeMembers:
    """Interfaces and bridges, by their indexes."""

    def __init__(self) -> None:
        self.of_bridge: dict[int, set[int]] = {}
        #: Those whose bridge is gone.
        self.away: set[int] = set()
        # The bridge of each, and what the user has named for it: both as they were noted.
        self._noted: dict[int, tuple[int, str | None]] = {}
        # By what the user has named: the bridges in which those are that nobody has moved, and how many in each.
        self._wished: dict[str, Counter[int]] = {}

    def note(self, index: int, member: Membership | None) -> list[int]:
        """Note in which bridge an interface belongs; None: it is gone. Return the bridges in which none belongs any
        more."""
        now = (member.bridge, None if member.moved else member.wanted) if member else (0, None)
        before = self._noted.pop(index, (0, None))
        if member is not None:
            self._noted[index] = now
        self.away.discard(index)
        if member is not None and member.state is State.AWAY:
            self.away.add(index)
        if now == before:
            return []
        self._count(*before, -1)
        self._count(*now, 1)
        if now[0]:
            self.of_bridge.setdefault(now[0], set()).add(index)
        if not before[0] or before[0] == now[0]:
            return []
        self.of_bridge[before[0]].discard(index)
        if self.of_bridge[before[0]]:
            return []
        del self.of_bridge[before[0]]
        return [before[0]]

    def wished(self, name: str) -> list[int]:
        """The bridges in which those interfaces belong for which the user has named `name`, unless somebody has moved
        them elsewhere; 0 for those that were in none yet."""
        return [*self._wished.get(name, ())]

    def places(self, name: str) -> list[int | str]:
        """The bridges of wished() by their indexes, and then this name."""
        return [*filter(None, self.wished(name)), name]

    def _count(self, bridge: int, wanted: str | None, more: int) -> None:
        if wanted is None:
            return
        counts = self._wished.setdefault(wanted, Counter())
        counts[bridge] += more
        if not counts[bridge]:
            del counts[bridge]
        if not counts:
            del self._wished[wanted]
