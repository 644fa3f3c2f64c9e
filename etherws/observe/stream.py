"""What the live page gets: all sessions at the start, then what changed, each two seconds, by server-sent events.

The sessions are read once for all pages that are open, and not at all while none is. A page that does not keep up is
cut; it connects again by itself. Messages (HTML, section 9.2, "Server-sent events") are "start", "rows" and "tick"; see
page/live.js, which reads them. history.py has the last ten minutes, which are sampled always.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import NoReturn, Protocol

import gevent
from gevent.event import Event

from etherws.counters import Values
from etherws.log_limit import LogLimit
from etherws.observe.history import STEP, History
from etherws.observe.subject import Subject
from etherws.walks import in_turns

#: Seconds between two readings of all sessions.
TICK = 2.0

#: Seconds that a page may be behind. It is cut then, so that what it has not read is bounded: 15 readings, which all
#: pages share. A megabyte at the start needs some of them on a slow path.
BEHIND_MAX = 30.0

#: Rows of a message. A browser takes about a millisecond for it.
ROWS_MAX = 50

#: Events in a message at most, the newest; a flood is not for reading.
EVENTS_MAX = 200

#: Steps of "heard", in seconds: the page wants to know who is silent, and not each sign of life.
HEARD_STEP = 5

#: A number of an event in an id; no process lives to have a longer one.
NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)

#: Milliseconds after which a browser connects again.
RETRY = 2000


class EventLog(Protocol):
    """What is needed of events.Events."""

    def since(self, number: int) -> tuple[list[Values], int]:
        """The events from this number on that are still there, and the number to ask with the next time."""


class LivePage:
    """Feeds all pages that are open."""

    def __init__(self, subject: Subject, events: EventLog) -> None:
        self._subject, self._events = subject, events
        #: Tells the page that this is another process than before.
        self._run = secrets.token_hex(4)
        self._history = History()
        self._table = Table()
        self._readers: set[_Reader] = set()
        self._ticker: gevent.Greenlet[..., None] | None = None
        self._sampler: gevent.Greenlet[..., None] | None = None
        self._limit = LogLimit(logging.getLogger(__name__))
        self._next_event = 0

    def start(self) -> None:
        """Begin to sample the history."""
        self._sampler = gevent.spawn(self._sample)

    def close(self) -> None:
        """End whatever runs, and all pages' streams."""
        for greenlet in (self._ticker, self._sampler):
            if greenlet is not None:
                greenlet.kill()
        for reader in list(self._readers):
            reader.end()

    def history(self, index: int | None) -> Values:
        """The last ten minutes of the session with this interface's index, or of all together. Raises NoSuchClient."""
        return self._history.values() if index is None else self._subject.history(index)

    def stream(self, last_id: str) -> Iterator[bytes]:
        """The messages for one page, without end; `last_id` is what its browser had last (Last-Event-ID), or empty."""
        known = int(last_id) if NUMBER.fullmatch(last_id) else 0
        # From here to the first yield nothing waits: what changes from now on comes to the reader.
        reader = _Reader()
        self._readers.add(reader)
        rows = self._table.rows()
        events, following = self._events.since(known)
        if self._ticker is None or self._ticker.dead:
            self._next_event = following
            self._ticker = gevent.spawn(self._tick_while_somebody_reads)
        try:
            yield b"retry: %d\n\n" % RETRY + _with_events("start", {"run": self._run}, events, following)
            yield from _messages(in_turns(rows))
            yield from reader.read()
        finally:
            self._readers.discard(reader)

    def _sample(self) -> NoReturn:
        while True:
            with self._each(STEP):
                self._history.add(time.time(), self._subject.totals())

    def _tick_while_somebody_reads(self) -> None:
        while self._readers:
            with self._each(TICK):
                self._tick()
        # The next who reads begins with what is there then.
        self._table = Table()

    @contextmanager
    def _each(self, seconds: float) -> Iterator[None]:
        """Log an error of the block, and wait until so many seconds after it began."""
        began = monotonic()
        try:
            yield
        except Exception as exc:
            self._limit.unexpected(exc)
        gevent.sleep(max(0.0, seconds - (monotonic() - began)))

    def _tick(self) -> None:
        table = self._table
        walks = (("sessions", self._subject.sessions()), ("parked", self._subject.parked()))
        changes = (change for kind, values in walks for each in values if (change := table.change(kind, each)))
        for chunk in _messages(in_turns(changes)):
            self._publish(chunk)
        for chunk in _messages(in_turns(table.gone())):
            self._publish(chunk)
        overview = self._subject.overview()
        events, self._next_event = self._events.since(self._next_event)
        self._publish(_with_events("tick", {"overview": overview}, events, self._next_event))

    def _publish(self, chunk: bytes) -> None:
        now = monotonic()
        for reader in list(self._readers):
            reader.put(now, chunk)


class Table:
    """What pages know: a row for each session and parked port, and which of them a walk has not met."""

    def __init__(self) -> None:
        # A row is never changed, but replaced: a page that begins to read has the rows of this moment.
        self._rows: dict[tuple[str, int], Values] = {}
        self._met: set[tuple[str, int]] = set()

    def rows(self) -> list[tuple[str, Values]]:
        """All rows, as changes."""
        return [(kind, row) for (kind, _), row in self._rows.items()]

    def change(self, kind: str, values: Values) -> tuple[str, Values] | None:
        """Take the values of a session or parked port; return what changed of them, if anything has. A value that is
        not there any more is None."""
        row = brief(values)
        key = kind, row["index"]
        self._met.add(key)
        before = self._rows.get(key)
        if before == row:
            return None
        self._rows[key] = row
        if before is None:
            return kind, row
        changed = {name: value for name, value in row.items() if before.get(name, row) != value}
        return kind, {**dict.fromkeys(before.keys() - row.keys()), **changed, "index": row["index"]}

    def gone(self) -> Iterator[tuple[str, Values]]:
        """Forget the rows that were not met since the last call, and yield them as changes."""
        for key in self._rows.keys() - self._met:
            del self._rows[key]
            yield f"gone_{key[0]}", {"index": key[1]}
        self._met = set()


def brief(values: Values) -> Values:
    """The row of a session or parked port: its values, in steps in which a change means something, and without those
    that change by themselves: "until" says what "left" does."""
    row = dict(values)
    row.pop("left", None)
    if row.get("heard") is not None:
        row["heard"] = int(row["heard"] // HEARD_STEP) * HEARD_STEP
    if row.get("rates"):
        row["rates"] = {name: round(rate) for name, rate in row["rates"].items()}
    if row.get("round_trip") is not None:
        row["round_trip"] = round(row["round_trip"], 5)
    if row.get("queue"):
        row["queue"] = {**row["queue"], "delay": round(row["queue"]["delay"], 5)}
    return row


class _Reader:
    """What one page is still to be sent."""

    def __init__(self) -> None:
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._more = Event()
        self._ended = False

    def put(self, now: float, chunk: bytes) -> None:
        """Add a message, or cut the page if it has not taken what came BEHIND_MAX seconds ago."""
        if self._chunks and now - self._chunks[0][0] > BEHIND_MAX:
            self.end()
        if not self._ended:
            self._chunks.append((now, chunk))
            self._more.set()

    def end(self) -> None:
        """Have read() end."""
        self._ended = True
        self._chunks.clear()
        self._more.set()

    def read(self) -> Iterator[bytes]:
        """Each message as it comes."""
        while not self._ended:
            self._more.wait()
            self._more.clear()
            # In turns: else all pages that are open would be sent the same between two polls of the event loop.
            yield from in_turns(self._taken())

    def _taken(self) -> Iterator[bytes]:
        while self._chunks:
            yield self._chunks.popleft()[1]


def message(name: str, data: str, number: int) -> bytes:
    """One server-sent event with this JSON; `number` is its id, that of the next event of the log."""
    # JSON in ASCII has no line feed, whatever the strings in it hold.
    return f"id: {number}\nevent: {name}\ndata: {data}\n\n".encode()


def _with_events(name: str, values: Values, events: list[Values], number: int) -> bytes:
    """A message with the newest of these events, and with how many were left out. To write 200 of them takes several
    milliseconds, so that is done in turns."""
    whole = _json({**values, "left_out": max(0, len(events) - EVENTS_MAX)})
    listed = ",".join(map(_json, in_turns(events[-EVENTS_MAX:])))
    return message(name, f'{whole[:-1]},"events":[{listed}]}}', number)


def _json(values: Values) -> str:
    return json.dumps(values, separators=(",", ":"))


def _messages(changes: Iterator[tuple[str, Values]]) -> Iterator[bytes]:
    """Messages of at most ROWS_MAX changes each."""
    rows: dict[str, list[str]] = {}
    count = 0
    for kind, row in changes:
        rows.setdefault(kind, []).append(_json(row))
        count += 1
        if count == ROWS_MAX:
            yield _rows(rows)
            rows, count = {}, 0
    if rows:
        yield _rows(rows)


def _rows(rows: dict[str, list[str]]) -> bytes:
    lists = ",".join(f'"{kind}":[{",".join(each)}]' for kind, each in rows.items())
    return f"event: rows\ndata: {{{lists}}}\n\n".encode()
