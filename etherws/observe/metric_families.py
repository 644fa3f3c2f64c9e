"""What the metrics are: each with its name, its help and its values, made of the overview (docs/metrics.rst).

Names and units are as Prometheus has them. Labels have few values: a reason that is not known here becomes "other", so
that nobody can fill the memory of who scrapes. Read next: metrics.py, which makes text of them; client_metrics.py.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from etherws.counters import Values
from etherws.events import KINDS

#: What stands for whatever is not in a set below.
OTHER = "other"

STATES = {
    "server": ("serving", "draining", "stopping"),
    "client": ("connected", "connecting", "waiting", "stopping"),
}

#: Why frames are dropped: by the wire (tunnel/wire.py, tunnel/connection.py), by the backlog (tunnel/fq_codel.py), by
#: the kernel that takes them from the TAP (tunnel/tap.py), with a connection of a link (client/members.py,
#: server/members.py), and by a client's rules (kernel/rules.py).
DROPS = frozenset(
    {
        *("unfinished", "runt", "super-frame", "text", "queue late", "queue full", "write", "connection ended"),
        *(errno.errorcode[number] for number in (errno.EIO, errno.EINVAL, errno.ENOBUFS, errno.EAGAIN, errno.ENOMEM)),
        *("bpdu", "dhcp-server", "router-advertisement", "source-address", "ip-source", "arp-sender"),
        *("neighbour-discovery", "group-rate", "disguised"),
    }
)

#: Why the client is not connected, or was not: the kinds of client/link_state.py.
ERRORS = ("unreachable", "refused", "lost")

#: Why clients are refused: the kinds of errors.Refused in server/, and those that it tells server/refusals.py.
REFUSALS = frozenset(
    {
        *(
            "PROXY header",
            "TLS",
            "TLS certificate",
            "no TLS",
            "bad request",
            "method not allowed",
            "upgrade required",
            "wrong path",
        ),
        *("wrong server", "foreign origin", "foreign host", "no credentials", "wrong user or password", "wrong token"),
        *("too many failures", "service unavailable", "certificate", "policy", "no port", "draining", "stopping"),
        *("ended by the operator", "check", "no such link"),
    }
)

#: The histograms of counters.Totals, and what they say.
HISTOGRAMS = {
    "round_trip": "Round trips of pings, each from here to the other end and back.",
    "loaded_round_trip": "Round trips during which packets waited here because the connection was full.",
    "queue_delay": "How long packets waited here because the connection was full: one sample for each turn.",
}

_DIRECTIONS = ("sent", "received")


def families(overview: Values, not_ready: str, events: Mapping[str, int] | None) -> Iterator[Metric]:
    """All metrics but those of single clients. `not_ready` is why /readyz says 503, `events` how many there were by
    kind, if that is known."""
    role = "client" if overview["role"] == "client" else "server"
    about = {"version": str(overview["version"]), "role": role, "name": str(overview["name"])}
    yield InfoMetricFamily("etherws", "Which etherws this is.", value=about)
    yield _gauge("etherws_ready", "1 if /readyz says that it is ready, else 0.", not not_ready)
    states = dict.fromkeys(STATES[role], 0)
    states[_one_of(overview["state"], STATES[role])] = 1
    yield _labelled(GaugeMetricFamily, "etherws_state", "1 for the state that it is in, 0 for others.", "state", states)
    yield from _totals(overview["totals"])
    if events is not None:
        counts = _closed(events, KINDS)
        yield _labelled(CounterMetricFamily, "etherws_events", "Events, by kind.", "kind", counts)
    yield from _of_client(overview) if role == "client" else _of_server(overview)


def _totals(totals: Mapping[str, Any]) -> Iterator[Metric]:
    """What all sessions have counted."""
    yield CounterMetricFamily("etherws_joins", "Sessions that have begun.", value=totals["joins"])
    yield CounterMetricFamily("etherws_leaves", "Sessions that have ended.", value=totals["leaves"])
    for key, name, text in (
        ("bytes", "etherws_carried_bytes", "Bytes over TCP, those of HTTP, WebSocket and TLS included."),
        ("frames", "etherws_frames", "Frames, without super-frames."),
        ("super_frames", "etherws_super_frames", "TCP super-frames, which the far kernel cuts into frames."),
    ):
        counts = {direction: totals[direction][key] for direction in _DIRECTIONS}
        yield _labelled(CounterMetricFamily, name, text, "direction", counts)
    drops = _closed(totals["drops"], sorted(DROPS))
    yield _labelled(CounterMetricFamily, "etherws_drops", "Frames that were dropped, by reason.", "reason", drops)
    for name, text in HISTOGRAMS.items():
        found = totals[name]
        bounds = [*map(floatToGoString, found["bounds"]), "+Inf"]
        buckets = list(zip(bounds, accumulate(found["counts"]), strict=True))
        yield HistogramMetricFamily(f"etherws_{name}_seconds", text, buckets=buckets, sum_value=found["sum"])


def _of_server(overview: Values) -> Iterator[Metric]:
    ports = overview["ports"]
    yield _gauge("etherws_sessions", "Clients that are connected.", ports["in_use"])
    yield _gauge("etherws_parked_ports", "Ports that are kept for clients that were lost.", ports["parked"])
    refusals = _closed(overview["refusals"], sorted(REFUSALS))
    yield _labelled(CounterMetricFamily, "etherws_refusals", "Clients that were refused.", "reason", refusals)
    workers = overview["workers"]
    yield _gauge("etherws_workers", "Worker processes; 0 if there are none beside this process.", len(workers))
    yield _gauge(
        "etherws_workers_answering",
        "Worker processes that answered when they were asked last.",
        sum(bool(worker["answers"]) for worker in workers),
    )
    if expires := overview.get("certificate_expires"):
        yield _gauge(
            "etherws_certificate_expiry_timestamp_seconds", "When the server's certificate expires.", float(expires)
        )


def _of_client(overview: Values) -> Iterator[Metric]:
    link = overview["link"]
    connected = overview["state"] == "connected"
    yield _gauge("etherws_sessions", "1 if it is connected, else 0.", connected)
    yield CounterMetricFamily("etherws_reconnects", "How often the connection has come back.", value=link["reconnects"])
    yield _gauge("etherws_connect_attempts", "Attempts to connect since the connection was lost.", link["attempts"])
    if link["next_attempt"] is not None:
        yield _gauge("etherws_next_attempt_seconds", "Seconds until the next attempt.", link["next_attempt"])
    if link["last_error_at"] is not None:
        yield _gauge(
            "etherws_last_error_timestamp_seconds",
            "When it could not connect, or lost the connection, for the last time.",
            link["last_error_at"],
        )
        kinds = dict.fromkeys(ERRORS, 0)
        kinds[_one_of(link.get("last_error_kind"), ERRORS)] = 1
        yield _labelled(GaugeMetricFamily, "etherws_last_error", "1 for the kind of that error.", "kind", kinds)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _labelled(
    kind: type[CounterMetricFamily | GaugeMetricFamily], name: str, text: str, label: str, values: Mapping[str, float]
) -> Metric:
    """A metric with one label."""
    family = kind(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _closed(counts: Mapping[str, int], known: Collection[str]) -> dict[str, int]:
    """The counts of all known keys, and those of unknown ones added up as OTHER. A known key is there from the start:
    Prometheus sees the first one only if there was a 0 before."""
    found = dict.fromkeys(known, 0)
    for key, count in counts.items():
        key = _one_of(key, known)
        found[key] = found.get(key, 0) + count
    return found


def _one_of(value: object, known: Collection[str]) -> str:
    return value if isinstance(value, str) and value in known else OTHER
