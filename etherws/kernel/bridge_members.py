"""Which interfaces belong in each bridge, and which of them wait for theirs.

Pure bookkeeping, so that a message of the kernel about a bridge is not compared with every interface. Read next:
bridges.py, which uses it; membership.py.
"""

from __future__ import annotations

from etherws.kernel.membership import Membership, State


class BridgeMembers:
    """Interfaces and bridges, by their indexes."""

    def __init__(self) -> None:
        self.of_bridge: dict[int, set[int]] = {}
        #: Those whose bridge is gone.
        self.away: set[int] = set()

    def note(self, index: int, member: Membership | None) -> list[int]:
        """Note in which bridge an interface belongs; None: it is gone. Return the bridges in which none belongs any
        more."""
        left = []
        for bridge in [one for one, those in self.of_bridge.items() if index in those]:
            if member is None or member.bridge != bridge:
                self.of_bridge[bridge].discard(index)
                if not self.of_bridge[bridge]:
                    del self.of_bridge[bridge]
                    left.append(bridge)
        self.away.discard(index)
        if member is not None:
            if member.bridge:
                self.of_bridge.setdefault(member.bridge, set()).add(index)
            if member.state is State.AWAY:
                self.away.add(index)
        return left
