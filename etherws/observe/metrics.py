"""Metrics for Prometheus, as text in its format or in OpenMetrics, made in turns (docs/metrics.rst lists them).

prometheus_client writes each metric, or a part of one. What is measured is in the overview; the sessions are looked at
only for the metrics of single clients. Read next: metric_families.py, client_metrics.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

import gevent
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from etherws.observe import client_metrics, metric_families
from etherws.observe.subject import Subject

#: What a scraper asks for that knows OpenMetrics, and how that ends (OpenMetrics 1.0, "Overall Structure").
OPENMETRICS, END = "application/openmetrics-text", b"# EOF\n"

Encoder = Callable[[Collector], bytes]


class _One(Collector):
    """One metric, or a part of one."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        """As Collector.collect()."""
        return (self._metric,)


def metrics(
    subject: Subject, accept: str, *, clients: bool = False, events: Mapping[str, int] | None = None
) -> tuple[str, Iterator[bytes]]:
    """The content type and the body of /metrics. `accept` is the request's header. With `clients`, each client of a
    server has metrics of its own. `events` says how many there were of each kind.

    The body comes in small pieces, some of them empty: each takes less than a millisecond, so that who sends it can let
    others have their turns.
    """
    # The library would put what the header says into the answer's.
    encode, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in accept.lower() else "")
    found: Iterable[Metric | None] = chain(
        # Now, and not once the answer has begun: what fails here is an answer of 500.
        list(metric_families.families(subject.overview(), subject.not_ready(), events)),
        # In a thread: it lists all descriptors, and a thousand clients have thousands.
        gevent.get_hub().threadpool.apply(_of_process),
        client_metrics.families(subject.sessions()) if clients and subject.role == "server" else (),
    )
    return content_type, _text(found, encode, END if OPENMETRICS in content_type else b"")


def _of_process() -> list[Metric]:
    """What the kernel says of this process."""
    return list(ProcessCollector(registry=None).collect())


def _text(found: Iterable[Metric | None], encode: Encoder, end: bytes) -> Iterator[bytes]:
    """The metrics as text. Parts of one metric have its head once."""
    last = ""
    for metric in found:
        if metric is None:
            yield b""
            continue
        text = encode(_One(metric)).removesuffix(end)
        if metric.name == last:
            # A label cannot look like a head: it is within a line, since line ends in it are escaped.
            text = b"".join(line + b"\n" for line in text.split(b"\n")[:-1] if not line.startswith(b"#"))
        last = metric.name
        yield text
    yield end
