"""What the live page is told as it goes. A stand-in: it ends at once."""

from __future__ import annotations

from collections.abc import Iterator

from etherws.counters import Values
from etherws.observe.events import Events
from etherws.observe.subject import Subject


def stream(subject: Subject, events: Events, last_id: str) -> Iterator[bytes]:
    """Server-sent events for the page. `last_id` is the last one that it has seen, empty at first."""
    return iter(())


def history(subject: Subject, index: int | None) -> Values:
    """The last ten minutes of a session, by its interface's index, or of all together."""
    return {}
