"""How many frames the filters of all ports have dropped, by reason: the kernel is asked once for all of them.

port_filter.py asks for one port, and takes a millisecond for that. Read next: nftables.py, nfnetlink.py,
shared_look.py. Sources: include/uapi/linux/netfilter/nf_tables.h; libnftnl, udata.h.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from etherws.kernel import netlink, nftables
from etherws.kernel.rules import PREFIX
from etherws.kernel.shared_look import SharedLook, in_turns

#: include/uapi/linux/netfilter/nf_tables.h: a rule's attributes, an expression's, and those of a counter.
NFTA_RULE_TABLE, NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA = 1, 4, 7
NFTA_EXPR_NAME, NFTA_EXPR_DATA, NFTA_COUNTER_PACKETS = 1, 2, 2

#: The type of a rule's comment in its user data, which has a type and a length of one byte each before the value.
_COMMENT = 0

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
        # Behind the header of nfnetlink, of 4 bytes.
        rule = dict(netlink.attributes(message.body[4:])) if len(message.body) > 4 else {}
        if NFTA_RULE_USERDATA not in rule or NFTA_RULE_EXPRESSIONS not in rule:
            continue
        table = netlink.text(rule.get(NFTA_RULE_TABLE, memoryview(b"")))
        if not table.startswith(PREFIX):
            continue
        frames = sum(_frames(value) for _, value in netlink.attributes(rule[NFTA_RULE_EXPRESSIONS]))
        if frames and (reason := _comment(rule[NFTA_RULE_USERDATA])):
            yield table, reason, frames


def _frames(expression: memoryview) -> int:
    values = dict(netlink.attributes(expression))
    if NFTA_EXPR_DATA not in values or netlink.text(values.get(NFTA_EXPR_NAME, memoryview(b""))) != "counter":
        return 0
    packets = dict(netlink.attributes(values[NFTA_EXPR_DATA])).get(NFTA_COUNTER_PACKETS, b"")
    return int.from_bytes(packets, "big")


def _comment(data: memoryview) -> str:
    if len(data) < 2 or data[0] != _COMMENT:
        return ""
    return netlink.text(data[2 : 2 + data[1]])
