"""Where a peer's packets go if rules apply to them: the TAP, while the rules are in force.

The rules are the kernel's (kernel/port_filter.py); this asks for them before the first packet passes, and again after
others have taken them away. Read next: tap.py; session.py, which has a sink.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from etherws.tunnel.tap import Tap
from etherws.tunnel.wire import VNET_BYTES, Buffer


class Filter(Protocol):
    """What keeps the rules of one TAP in force."""

    def arm(self, source: bytes, hold: Callable[[], None]) -> None:
        """Have the rules in force; `source` is the first packet's source address. Calls `hold` when they are not any
        more. Raises DeviceError if they cannot be put in."""


class SharedFilter:
    """One filter for the sinks of several queues of a TAP: when the rules are taken away, all of them hold."""

    def __init__(self, rules: Filter) -> None:
        self._filter = rules
        self._holds: list[Callable[[], None]] = []

    def arm(self, source: bytes, hold: Callable[[], None]) -> None:
        """See Filter."""
        if hold not in self._holds:
            self._holds.append(hold)
        self._filter.arm(source, self._hold)

    def _hold(self) -> None:
        # Each is there again once it has called arm().
        holds, self._holds = self._holds, []
        for hold in holds:
            hold()


class FilteredSink:
    """The TAP, once the rules are in force."""

    def __init__(self, tap: Tap, rules: Filter) -> None:
        self._tap, self._filter = tap, rules

    def write_batch(self, packets: Sequence[Buffer]) -> None:
        """As Tap.write_batch(). The first call, and the first after others have taken the rules away, wait for the
        rules, and may also raise DeviceError: they cannot be put in, and no packet was written."""
        self._filter.arm(bytes(packets[0][VNET_BYTES + 6 : VNET_BYTES + 12]) if packets else b"", self._hold)
        # From now on a call costs no more than one of the TAP's.
        self.write_batch = self._tap.write_batch  # type: ignore[method-assign]
        self._tap.write_batch(packets)

    def _hold(self) -> None:
        """The next call is the first again."""
        self.__dict__.pop("write_batch", None)
