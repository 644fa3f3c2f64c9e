"""How many frames the filters of all ports have dropped, by reason: the kernel is asked once for all of them.

port_filter.py asks for one port, and takes a millisecond for that. Read next: nftables.py, nfnetlink.py,
shared_look.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from etherws.kernel import netlink, nftables
from etherws.kernel.nfnetlink import NFGENMSG
from etherws.kernel.rules import PREFIX
from etherws.kernel.shared_look import SharedLook
from etherws.walks import in_turns

#: Seconds for which counts are used.
FRESH = 5.0

#: What was counted, by reason, for the table of each port.
Counts = Mapping[str, Mapping[str, int]]


class RuleCounts:
    """Of all tables of etherws in this network namespace."""

    def __init__(self) -> None:
        self._shared: SharedLook[Counts] = SharedLook(FRESH)
        self._before: Counts = {}
        #: What was dropped in all as far as it was seen, also at ports that are gone. It never goes down.
        self.total: Counter[str] = Counter()

    def look(self) -> Counts:
        """The counts, which may be some seconds old; none if the kernel does not tell."""
        return self._shared.get(self._look)

    def _look(self) -> Counts:
        found: dict[str, dict[str, int]] = {}
        try:
            for table, reason, frames in _counters():
                counts = found.setdefault(table, {})
                counts[reason] = counts.get(reason, 0) + frames
        except OSError:
            return self._before
        for table, counts in found.items():
            before = self._before.get(table, {})
            for reason, frames in counts.items():
                # Rules that were put in anew begin at 0 again.
                known = before.get(reason, 0)
                self.total[reason] += frames - known if frames >= known else frames
        self._before = found
        return found


def _counters() -> Iterator[tuple[str, str, int]]:
    """The table, the reason and the count of each rule that drops. Raises OSError."""
    # One walk over all parts: each part alone takes less than a turn.
    whole = ((data, found) for data in nftables.rules() for found in netlink.messages(data))
    for part, message in in_turns(whole):
        netlink.check(message.kind, part)
        # The end of the list has no attributes.
        rule = dict(netlink.attributes(message.body[NFGENMSG:]))
        table = netlink.text(rule.get(nftables.TABLE, memoryview(b"")))
        if not table.startswith(PREFIX) or not (frames := nftables.frames_of(rule)):
            continue
        if reason := nftables.reason_of(rule):
            yield table, reason, frames
