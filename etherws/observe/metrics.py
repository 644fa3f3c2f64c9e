"""Metrics for Prometheus. A stand-in: it says nothing yet."""

from __future__ import annotations

from collections.abc import Iterator

from etherws.observe.subject import Subject


def metrics(subject: Subject, accept: str) -> tuple[str, Iterator[bytes]]:
    """The content type and the body of /metrics. `accept` is the request's header."""
    return "text/plain; version=0.0.4; charset=utf-8", iter(())
