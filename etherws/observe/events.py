"""The last events, for whoever asks, and for followers: a handler of the log, with a ring of a thousand records.

To log never waits for a follower. Who is too slow gets a gap, which says how many events were left out. Read next:
etherws/events.py, which has the fields of an event; application.py, which shows them.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import gevent
from gevent.event import Event

from etherws.counters import Values
from etherws.events import KINDS, OTHER, event_of

#: Events that are kept. Each takes about one kilobyte.
EVENTS_MAX = 1000

#: Characters of an event's text: a traceback has some thousands.
TEXT_MAX = 4000

#: Seconds for which follow() waits before it says that there was nothing. Proxies cut connections that are silent for
#: 30 s and more.
QUIET = 15.0

#: Seconds between two looks of a follower. At 10,000 events a second it misses none if it is as quick as they come.
PACE = 0.1

#: The kind of what stands for events that a follower has missed.
GAP = "gap"


class Events(logging.Handler):
    """The ring. Add it to the logger "etherws", at whose level events are complete whatever is shown of the log."""

    def __init__(
        self, *, clock: Callable[[], float] = time.time, sleep: Callable[[float], object] = gevent.sleep
    ) -> None:
        """`clock` gives seconds since 1970."""
        super().__init__()
        self._clock, self._sleep = clock, sleep
        # So numbers count on when the process is started again: who followed the one before has missed nothing.
        self._first = self._next = int(clock() * 1000)
        self._ring: deque[Values] = deque(maxlen=EVENTS_MAX)
        #: How many there were of each kind, those included that are no longer kept.
        self.counts: Counter[str] = Counter()
        # Set, and replaced, when there is a new one, if somebody waits for that.
        self._more = Event()
        self._awaited = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record of the log."""
        try:
            text = record.getMessage()
        except Exception:
            self.handleError(record)
            return
        kind, fields = event_of(record)
        self.add({**fields, "time": record.created, "level": record.levelname.lower(), "kind": kind, "text": text})

    def add(self, values: Mapping[str, Any]) -> None:
        """Keep an event of another process, which has all but its number: "time", "level", "kind", "text" and more."""
        number, self._next = self._next, self._next + 1
        kind = values.get("kind")
        self.counts[kind if kind in KINDS else OTHER] += 1
        self._ring.append({**values, "number": number, "text": str(values.get("text", ""))[:TEXT_MAX]})
        if self._awaited:
            self._awaited = False
            more, self._more = self._more, Event()
            more.set()

    @property
    def next(self) -> int:
        """The number of the next event."""
        return self._next

    def since(self, number: int) -> tuple[list[Values], int]:
        """The events of this number and above, and the number of the next. A number of another process means all that
        are kept."""
        if not self._first <= number <= self._next:
            number = self._first
        kept = self._next - len(self._ring)
        # A deque is slow in its middle, by the position.
        return list(islice(self._ring, max(0, number - kept), None)), self._next

    def left_out(self, number: int) -> int:
        """How many events of this number and above are no longer kept."""
        known = self._first <= number <= self._next
        return max(0, self._next - len(self._ring) - number) if known else 0

    def follow(self, number: int) -> Iterator[Values | None]:
        """The events of this number and above as since() has them, and then each as it comes, without end; None each
        QUIET seconds in which there was none. An event of kind "gap" stands for those that have gone meanwhile."""
        for found in self.batches(number):
            yield from found or (None,)

    def batches(self, number: int) -> Iterator[list[Values]]:
        """As follow(), but all that there are at once; none for None."""
        while True:
            missed = self.left_out(number)
            found, number = self.since(number)
            if missed:
                found.insert(0, self._gap(number - len(found) - 1, missed))
            if found:
                yield found
            if number == self._next:
                self._awaited = True
                if not self._more.wait(QUIET):
                    yield []
                    continue
            # In a flood, what comes meanwhile goes with the next one.
            self._sleep(PACE)

    def _gap(self, number: int, count: int) -> Values:
        text = f"{count} events were left out: they came faster than they were read"
        return {
            "number": number,
            "time": self._clock(),
            "level": "warning",
            "kind": GAP,
            "text": text,
            "left_out": count,
        }
