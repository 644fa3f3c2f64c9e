"""What the client does not let in from the far LAN (--drop): filters of the kernel on its own TAP.

What the client writes into its TAP comes in by that interface for this machine, as a client's frames do on a server.
So the same rules hold here, and are put back if others take them away. Read next: kernel/guard.py,
kernel/port_filter.py.
"""

from __future__ import annotations

from collections import Counter

from etherws.kernel.guard import Guard
from etherws.kernel.port_filter import PortFilter
from etherws.kernel.port_tables import check, remove_stale_tables
from etherws.kernel.rules import Rules
from etherws.tunnel.filtered_sink import FilteredSink, SharedFilter
from etherws.tunnel.tap import Tap


class FarLan:
    """The filter of the client's TAP. It stays in force from the start to the end, whatever the connections do."""

    def __init__(self, guards: frozenset[str], vlan: int | None = None) -> None:
        """`guards` are what is dropped, of kernel/rules.py; `vlan` is the VLAN of the TAP in its bridge. Remove what
        killed processes left.

        Raises DeviceError, with the hint, if there are guards or a VLAN, and this kernel or user cannot filter.
        """
        self._rules = Rules(drop=guards, vlan=vlan)
        self._guard = Guard()
        self._tap: Tap | None = None
        self._filter: PortFilter | None = None
        self._shared: SharedFilter | None = None
        self._counted: Counter[str] = Counter()
        if self._rules.filters:
            check("what comes from the far LAN")
            remove_stale_tables()
            self._guard.start()

    def guard(self, tap: Tap) -> None:
        """Have the rules in force at this TAP, which may be another than before. Raises DeviceError; then no frame of
        the far LAN may pass."""
        if self._filter is None or self._tap is not tap:
            self._tap, self._filter = tap, self._guard.port_filter(tap.index, tap)
            self._counted.clear()
        # Without guards, too: a killed client may have left its rules under this name.
        self._filter.need(self._rules, returning=True)
        self._filter.arm()

    def sink(self, tap: Tap) -> Tap | FilteredSink:
        """Where a session puts what comes from the far LAN; guard() was called for this TAP."""
        self._shared = SharedFilter(self._filter) if self._rules.filters and self._filter else None
        return self.further_sink(tap)

    def further_sink(self, queue: Tap) -> Tap | FilteredSink:
        """The same for a further session, which has this queue of the TAP that sink() was called for last."""
        return FilteredSink(queue, self._shared) if self._shared else queue

    def drops(self) -> Counter[str]:
        """How many frames were dropped since the last call, by reason."""
        total = Counter(self._filter.drops() if self._filter else {})
        new, self._counted = total - self._counted, total
        return new

    def leave(self) -> None:
        """Another process goes on with the TAP: the rules stay in force, and are not watched here any more."""
        self._guard.close()

    def close(self) -> None:
        """Remove the rules. No frame may come any more. Raises DeviceError."""
        self._guard.close()
        if self._filter is not None:
            self._filter.clear()
