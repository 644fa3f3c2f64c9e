"""Events: what has happened, as fields that programs can read. An event is a record of the log with these fields.

Nothing is told twice: who logs a line says by `extra=event(...)` what it is about. A line without an event is one of
the kind "other".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

#: The kinds, in the order of docs/logs.rst. A client's own are "connect", "lost" and "failed".
JOIN, LEAVE, REFUSED, CONNECT, LOST, FAILED = "join", "leave", "refused", "connect", "lost", "failed"
PORT, LOOP, RELOAD, KICK, DRAIN, START, STOP, CHECK, OTHER = (
    "port",
    "loop",
    "reload",
    "kick",
    "drain",
    "start",
    "stop",
    "check",
    "other",
)
KINDS = (JOIN, LEAVE, REFUSED, CONNECT, LOST, FAILED, PORT, LOOP, RELOAD, KICK, DRAIN, START, STOP, CHECK, OTHER)


class Event(NamedTuple):
    """What a record of the log is about. `fields` are values for JSON."""

    kind: str
    fields: Mapping[str, Any]


def event(kind: str, **fields: Any) -> dict[str, Event]:
    """The `extra` of a call to a logger; `kind` is one of KINDS."""
    return {"event": Event(kind, fields)}


def event_of(record: logging.LogRecord) -> Event:
    """What a record is about."""
    found = getattr(record, "event", None)
    return found if isinstance(found, Event) else Event(OTHER, {})
