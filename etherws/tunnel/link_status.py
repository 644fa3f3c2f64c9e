"""What is shown of a link: one session, put together from those of its connections.

Pure. docs/status.rst describes the values. Server and client show it: server/observed.py, client/link_counts.py. Read
next: session_status.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from statistics import median
from typing import Any

from etherws.counters import Traffic, Values

#: What is shown of each connection.
_OF_EACH = ("worker", "since", "heard", "round_trip", "rates", "queue")


def together(parts: Mapping[int, Values], ended: tuple[Traffic, Traffic, Mapping[str, int]]) -> Values:
    """The own part of a session, from those of connections by their number. `ended` is what those that have ended have
    sent, received and dropped. A part may lack what nobody has told."""
    told = [part for part in parts.values() if "sent" in part]
    sent, received, drops = Traffic(), Traffic(), Counter(ended[2])
    sent.add(ended[0])
    received.add(ended[1])
    for part in told:
        sent.add(Traffic(**part["sent"]))
        received.add(Traffic(**part["received"]))
        drops.update(part["drops"])
    first = next(iter(told or parts.values()), {})
    values: Values = {
        **first,
        "members": len(parts),
        "connections": [
            {"member": number, **{key: part.get(key) for key in _OF_EACH}} for number, part in parts.items()
        ],
    }
    if told:
        values |= {
            "heard": min((part["heard"] for part in told if part["heard"] is not None), default=None),
            "round_trip": _middle(part["round_trip"] for part in told),
            "loaded_round_trip": _middle(part.get("loaded_round_trip") for part in told),
            "sent": sent.values(),
            "received": received.values(),
            "rates": {key: sum(part["rates"][key] for part in told) for key in ("sent", "received")},
            "drops": dict(drops),
            "queue": {
                "delay": max(part["queue"]["delay"] for part in told),
                **{key: sum(part["queue"][key] for part in told) for key in ("packets", "bytes")},
            },
        }
    return values


def histories_together(parts: Sequence[Values]) -> Values:
    """The history of a link, from those of its connections, each as tunnel/history.py has it. Rows count from the end:
    the ends are within one step."""
    longest = max(parts, key=lambda part: len(part["sent"]))
    found: Values = {"step": longest["step"], "end": longest["end"]}
    ways = {"sent": _sum, "received": _sum, "round_trip": _middle, "queue_delay": _most, "drops": _sum}
    for name, way in ways.items():
        found[name] = [way(row) for row in zip_longest(*(reversed(part[name]) for part in parts))][::-1]
    return found


def _known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _sum(values: Iterable[Any]) -> Any:
    return sum(_known(values))


def _most(values: Iterable[Any]) -> Any:
    return max(_known(values), default=None)


def _middle(values: Iterable[Any]) -> Any:
    known = _known(values)
    return median(known) if known else None
