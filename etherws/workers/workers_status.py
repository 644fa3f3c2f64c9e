"""What the port process asks its workers, so that all of a server can be shown: the Inside of server/observed.py.

All are asked at once, and nobody waits for one that hangs for longer than TIMEOUT. What a worker has counted stays
counted when it ends. Read next: worker_status.py, which answers; port_server.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore

from etherws.counters import Totals, Values
from etherws.errors import ChannelError, EtherwsError, NoSuchClient
from etherws.server.member import Member
from etherws.server.observed import UNKNOWN, Counted
from etherws.server.port import Port
from etherws.walks import in_turns
from etherws.workers.messages import Message
from etherws.workers.port_server import PortServer
from etherws.workers.worker_link import WorkerLink

#: Seconds for all answers of a worker. One that is alive takes some milliseconds for a thousand sessions.
TIMEOUT = 1.0

#: Seconds for which an answer is used for others who ask.
FRESH = 0.25

#: What a session's own part has, and no more: the rest is known here.
_OWN = {*UNKNOWN, "since", "loaded_round_trip"}

#: What is not true any more of a session whose worker does not answer.
_OF_NOW = {key: UNKNOWN[key] for key in ("heard", "rates", "queue")}

#: Reasons that are counted of one worker. Ours are some ten.
REASONS_MAX = 100


@dataclass
class _Told:
    """What one worker has told."""

    counted: Counted = field(default_factory=Counted)
    #: Whether it answered the last time.
    answers: bool = False
    #: The own part of the session on each port, by the lease's number.
    own: dict[int, Values] = field(default_factory=dict)


class WorkersStatus:
    """Of all workers of a port process."""

    def __init__(self, server: PortServer) -> None:
        self._server = server
        server.on_counted, server.on_ended = self.hear, self._end
        self._told: dict[WorkerLink, _Told] = {}
        #: What those have counted that have ended.
        self._ended = Counted()
        self._asking = BoundedSemaphore(1), BoundedSemaphore(1)
        self._fresh_until = [0.0, 0.0]

    def count(self) -> Counted:
        """As Inside.count()."""
        self._ask(0, self._ask_counted)
        totals, refused = Totals(), Counter[str](self._ended.refusals)
        totals.merge(self._ended.totals.values())
        workers = []
        for link in sorted(self._server.workers, key=lambda link: link.pid or 0):
            told = self._of(link)
            totals.merge(told.counted.totals.values())
            refused.update(told.counted.refusals)
            workers.append({"pid": link.pid, "sessions": len(link.leases), "answers": told.answers})
        return Counted(totals, refused, workers)

    def workers(self) -> list[Values]:
        """As Inside.workers()."""
        return self.count().workers

    def look(self) -> Callable[[Port | Member], Values]:
        """As Inside.look()."""
        self._ask(1, self._ask_sessions)
        found: dict[Port | Member, Values] = {}
        for link in list(self._server.workers):
            told = self._of(link)
            for lease in in_turns(list(link.leases.values())):
                own = told.own.get(lease.number, {})
                found[lease.port] = {"worker": link.pid, **own, **({} if told.answers or not own else _OF_NOW)}
        return lambda port: found.get(port, {"worker": None})

    def history(self, port: Port | Member) -> Values:
        """As Inside.history()."""
        lease = self._server.lease_of(port)
        if lease is None:
            raise NoSuchClient(f"no session is on {port.tap.name}")
        try:
            found: Any = lease.link.channel.call("history", {"port": lease.number}, TIMEOUT).values.get("history")
        except EtherwsError as exc:
            raise NoSuchClient(f"nothing is told of the session on {port.tap.name}: {exc}") from exc
        return found if isinstance(found, dict) else {}

    def hear(self, link: WorkerLink, message: Message) -> None:
        """A worker tells what it has counted. Raises ChannelError if that is malformed."""
        try:
            totals, refused = Totals(), message["refusals"]
            totals.merge(message["totals"])
            for counts in (refused, totals.drops):
                if not all(type(count) is int for count in counts.values()) or len(counts) > REASONS_MAX:
                    raise ValueError("counts that are none")
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise ChannelError(f"what it has counted is malformed: {exc!r}") from exc
        self._of(link).counted = Counted(totals, dict(refused))

    def _end(self, link: WorkerLink) -> None:
        """A worker has ended: what it has told stays counted."""
        if (told := self._told.pop(link, None)) is not None:
            self._ended.totals.merge(told.counted.totals.values())
            self._ended.refusals = Counter(self._ended.refusals) + Counter(told.counted.refusals)

    def _of(self, link: WorkerLink) -> _Told:
        """What this worker has told. Nothing is kept of one that has ended meanwhile."""
        return self._told.setdefault(link, _Told()) if link in self._server.workers else _Told()

    def _ask(self, what: int, ask: Callable[[WorkerLink], None]) -> None:
        """Ask all workers, unless that was done a moment ago."""
        with self._asking[what]:
            if monotonic() < self._fresh_until[what]:
                return
            asked = [gevent.spawn(self._ask_one, link, ask) for link in list(self._server.workers)]
            gevent.joinall(asked)
            self._fresh_until[what] = monotonic() + FRESH

    def _ask_one(self, link: WorkerLink, ask: Callable[[WorkerLink], None]) -> None:
        told = self._of(link)
        try:
            with gevent.Timeout(TIMEOUT, ChannelError("no answer")):
                ask(link)
            told.answers = True
        except EtherwsError:
            told.answers = False

    def _ask_counted(self, link: WorkerLink) -> None:
        self.hear(link, link.channel.call("counted", {}, TIMEOUT).values)

    def _ask_sessions(self, link: WorkerLink) -> None:
        own: dict[int, Values] = {}
        after: Any = 0
        while after is not None:
            answer = link.channel.call("sessions", {"after": after}, TIMEOUT).values
            try:
                own |= {
                    int(port): {key: values[key] for key in _OWN & set(values)} for port, values in answer["sessions"]
                }
                before, after = after, answer["next"]
            except (KeyError, TypeError, ValueError) as exc:
                raise ChannelError(f"its sessions are malformed: {exc!r}") from exc
            if after is not None and not (type(after) is int and after > before):
                raise ChannelError("its sessions are without end")
        self._of(link).own = own
