"""The metrics of single clients, for --monitor-clients: a server with a thousand clients has ten thousand of them.

What is read of the sessions is kept until all is written, since a metric's values of all clients must stand together.
Read next: metrics.py, which makes text of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from etherws.counters import Values
from etherws.errors import printable

#: Clients that are shown at most: who scrapes keeps each of their metrics in memory.
CLIENTS_MAX = 2000

#: Values that are written at once, in one turn: some 0.05 ms each on a small machine.
AT_ONCE = 25

#: What a client is told apart by: its identity, empty if it has none, and its interface.
LABELS = ("identity", "device")

Labels: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class _Kind:
    """A metric of a client. `read` gives its value, None if there is none."""

    name: str
    text: str
    read: Callable[[Values], float | None]
    counts: bool = False
    direction: str = ""


def _carried(key: str, name: str, text: str) -> Iterator[_Kind]:
    for direction in ("sent", "received"):
        yield _Kind(name, text, lambda session, at=direction: session[at][key], True, direction)  # type: ignore[misc]


#: Those of one name follow each other.
KINDS = (
    *_carried("bytes", "etherws_client_carried_bytes", "Bytes over TCP of this session."),
    *_carried("frames", "etherws_client_frames", "Frames of this session, without super-frames."),
    *_carried("super_frames", "etherws_client_super_frames", "TCP super-frames of this session."),
    _Kind(
        "etherws_client_drops",
        "Frames of this session that were dropped, those by its rules included.",
        lambda session: sum(session["drops"].values()),
        True,
    ),
    _Kind("etherws_client_connected_timestamp_seconds", "When the session began.", lambda session: session["since"]),
    _Kind(
        "etherws_client_heard_seconds",
        "Seconds since something came from the client.",
        lambda session: session["heard"],
    ),
    _Kind("etherws_client_round_trip_seconds", "The last round trip.", lambda session: session["round_trip"]),
    _Kind(
        "etherws_client_loaded_round_trip_seconds",
        "The last round trip during which packets waited here.",
        lambda session: session.get("loaded_round_trip"),
    ),
    _Kind(
        "etherws_client_queue_delay_seconds",
        "How long the packet has waited that waits longest, or had that was sent last.",
        lambda session: session["queue"]["delay"],
    ),
    _Kind("etherws_client_queue_bytes", "Bytes that wait.", lambda session: session["queue"]["bytes"]),
)


def families(sessions: Iterable[Values]) -> Iterator[Metric | None]:
    """The metrics of these sessions, in parts: those of one name follow each other, and are one metric. None comes for
    each session that is read, so that others may have their turn."""
    rows: dict[str, tuple[Labels, list[float | None]]] = {}
    left_out = 0
    for session in sessions:
        yield None
        if session["wire"] is None:
            # Its worker does not answer. A counter that is 0 now, and large again later, would be a flood.
            continue
        device = session["device"]
        if len(rows) >= CLIENTS_MAX and device not in rows:
            left_out += 1
            continue
        labels = (printable(session.get("identity") or ""), device)
        rows[device] = labels, [kind.read(session) for kind in KINDS]
    yield GaugeMetricFamily(
        "etherws_clients_left_out", "Clients without metrics of their own, since there are too many.", value=left_out
    )
    for at, kind in enumerate(KINDS):
        found = [(labels, values[at]) for labels, values in rows.values()]
        for begin in range(0, len(found), AT_ONCE):
            yield _family(kind, found[begin : begin + AT_ONCE])


def _family(kind: _Kind, rows: Iterable[tuple[Labels, float | None]]) -> Metric:
    """A part of a metric."""
    make = CounterMetricFamily if kind.counts else GaugeMetricFamily
    direction = ("direction",) if kind.direction else ()
    family = make(kind.name, kind.text, labels=[*LABELS, *direction])
    for labels, value in rows:
        if value is not None:
            family.add_metric([*labels, *([kind.direction] if direction else [])], float(value))
    return family
