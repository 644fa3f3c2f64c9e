"""A worker of gunicorn tells its events to the port process, which keeps those of all workers to be seen.

What the log of gunicorn gets stays as it was, whatever levels and handlers the user has chosen for it. Read next:
workers/told_events.py, the messages; observed_ports.py, the other end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gevent.monkey import get_original

from etherws.events import OTHER, event_of
from etherws.workers.messages import Message
from etherws.workers.told_events import event_message


class WorkerEvents(logging.Handler):
    """Tells of each record that is an event."""

    def __init__(self, offer: Callable[[str, Message], bool]) -> None:
        """`offer` sends a message if there is room, and says whether there was."""
        super().__init__(logging.INFO)
        self._offer = offer
        self._left_out = 0
        self._thread = _thread()

    def emit(self, record: logging.LogRecord) -> None:
        """Tell of it, or count it."""
        if event_of(record).kind == OTHER:
            return
        # A channel is of one thread, the event loop's.
        if _thread() == self._thread and self._offer("event", event_message(record, self._left_out)):
            self._left_out = 0
        else:
            self._left_out += 1


class _AsBefore(logging.Handler):
    """What a logger has done with its records by itself."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger.getEffectiveLevel())
        self._own, self._parent = list(logger.handlers), logger.parent if logger.propagate else None

    def emit(self, record: logging.LogRecord) -> None:
        for handler in self._own:
            if record.levelno >= handler.level:
                handler.handle(record)
        if self._parent is not None:
            self._parent.callHandlers(record)


def tell_events(offer: Callable[[str, Message], bool], logger: logging.Logger) -> None:
    """Have the events of this logger, and of those below it, told from now on: see WorkerEvents."""
    before = _AsBefore(logger)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.propagate = False
    logger.addHandler(before)
    logger.addHandler(WorkerEvents(offer))
    # Joins and leaves are events, whatever the log shows.
    logger.setLevel(min(before.level, logging.INFO))


def _thread() -> Any:
    """The number of this thread; gevent's own would be a greenlet's."""
    return get_original("_thread", "get_ident")()
