"""The connections of one link: further members join the first one, and each is replaced, or made again if it is lost.

Each member has a queue of the TAP; which frames that gets is the kernel's choice, by flow. The turns and the waits are
in member_plan.py. A link of one connection that is not to be replaced has one session, and nothing else. Read next:
reconnect.py, which founds the link; servers.py: Servers.join; docs/wire.rst, "A link".
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from time import monotonic

import gevent
from gevent.event import AsyncResult, Event

from etherws.client.link_counts import LinkCounts
from etherws.client.local_end import LocalEnd
from etherws.client.losses import Losses
from etherws.client.member_log import MemberLog
from etherws.client.member_plan import MemberPlan, why_fewer
from etherws.client.servers import Servers
from etherws.close_codes import DRAINING, CloseCode
from etherws.counters import Totals
from etherws.errors import ConnectError, ConnectionClosed, DeviceError, EtherwsError, NetworkChanged, ProtocolError
from etherws.features import Membership
from etherws.settings import ClientSettings, Retry
from etherws.tunnel.connection import Connection
from etherws.tunnel.session import Session, Sink
from etherws.tunnel.tap import Tap

#: Seconds from the loss of a member until the log says so. A server that ends all members does it within this time, and
#: then the loss of the link is all there is to say.
SETTLED = 0.5

#: A connection that was replaced ends once nothing has come by it for QUIET seconds, and at the latest after
#: RETIRED_MAX: until then comes what the server had queued for it. On most paths a lost segment holds up what is behind
#: it for less than QUIET; docs/wire.rst, "A link", has RETIRED_MAX.
QUIET, RETIRED_MAX = 2.0, 10.0

#: Why packets were dropped that waited in the queue of a connection that was lost.
QUEUE_LOST = "connection ended"

#: Why a connection ends that was replaced. The server knows by this that it is no loss.
REPLACED = "replaced"

#: Called with the reason why the last member has ended, and with its session.
Ended = Callable[[EtherwsError, Session], object]


class Members:
    """The link, from its first connection until there is none."""

    def __init__(
        self,
        local: LocalEnd,
        servers: Servers,
        server: str,
        founder: Membership | None,
        settings: ClientSettings,
        retry: Retry,
        losses: Losses,
        totals: Totals,
    ) -> None:
        """`founder` is what the first connection, to `server`, has offered. What sessions count is counted in `totals`,
        too; `losses` are told of their ends."""
        self._local, self._servers, self.server, self._founder = local, servers, server, founder
        self._settings, self._losses, self._totals = settings, losses, totals
        given = min(servers.members, founder.of) if founder else 0
        self._plan = MemberPlan(given, settings.max_age, retry) if given else None
        #: How many members there are to be.
        self.count = given or 1
        #: The sessions that carry frames now, by the number of the member.
        self.live: dict[int, Session] = {}
        self.log = MemberLog(server, self.count, lambda: len(self.live))
        several = local.tap.multi_queue
        servers.warn("connections", why_fewer(settings, local.tap.name, several, server, servers.members))
        self._queues: dict[int, tuple[Tap, Sink]] = {0: (local.tap, local.sink())}
        # The queue that keeps flows on the others, if there are to be several: Queues.hold_flows().
        self._spare: int | None = None
        # Set when the plan has changed.
        self._changed = Event()
        # Why the link has ended. Why it is to end, if one member has ended for a reason that holds for all. And whether
        # it is to end.
        self._over: AsyncResult[EtherwsError] = AsyncResult()
        self._reason: EtherwsError | None = None
        self._leaving = False
        self._began = monotonic()
        # The greenlets that run sessions, the sessions that were replaced, and all other greenlets.
        self._running: list[gevent.Greenlet[..., None]] = []
        self._retired: list[Session] = []
        self.counts = LinkCounts(self.live, self._retired, local.drops, alone=self._plan is None)
        self._beside: list[gevent.Greenlet[..., None]] = []

    def run(self, connection: Connection, ended: Ended) -> EtherwsError:
        """Carry frames by `connection`, the first one, and by those that join it, until there is none. The TAP is
        prepared for it: Tap.begin(). Return why the last one has ended; `ended` is told before its closing
        handshake."""
        self.live[0] = session = self._session(0, connection)
        if self._plan is None:
            return self._run_alone(session, ended)
        with contextlib.suppress(DeviceError):
            self._spare = self._local.tap.spare_queue() if self.count > 1 else None
        self._hold_flows(self._local.tap)
        self._running.append(gevent.spawn(self._carry, 0, session, ended, False, None))
        self._beside.append(gevent.spawn(self._join, self._plan, ended))
        try:
            reason = self._over.get()
            assert reason is not None
            gevent.killall(self._beside)
            for each in self._retired:
                self._end_retired(each)
            gevent.joinall(self._running)
            return reason
        finally:
            gevent.killall([*self._beside, *self._running])
            self._local.tap.let_flows_go()
            if self._spare is not None:
                os.close(self._spare)
            self._close_queues()

    def stop(self, *, restart: bool) -> None:
        """End run(): the server is told that this side goes away, or, with `restart`, is there again in a moment."""
        self._leaving = True
        for session in list(self.live.values()):
            (session.restart if restart else session.stop)()

    def probe(self, *, urgent: bool, by_user: bool) -> None:
        """See soon whether the server is there, by each connection, and connect those that are missing. Without
        `by_user` the machine's network has changed; whether that is `urgent` is as in Session.probe()."""
        for session in self.live.values():
            session.probe(urgent=urgent)
        if self._plan and (by_user or urgent):
            self._plan.hurry(by_user=by_user)
            self._changed.set()

    @property
    def local_addresses(self) -> set[str]:
        """The addresses of this machine that the connections have; an empty one if one has none."""
        return {session.local_address for session in self.live.values()}

    @property
    def age(self) -> float:
        """For how many seconds the link has been there."""
        return monotonic() - self._began

    @property
    def several(self) -> str:
        """By how many connections the link is there, as the end of a sentence; empty if one is all that it is to
        have."""
        return f" by {len(self.live)} of {self.count} connections" if self.count > 1 else ""

    def _hold_flows(self, queue: Tap) -> None:
        """Keep each flow on one connection while there are several."""
        # Without a descriptor for this, a flow may change its connection now and then. The link works all the same.
        with contextlib.suppress(OSError):
            if self._spare is not None:
                queue.hold_flows(os.dup(self._spare))

    def _session(self, number: int, connection: Connection) -> Session:
        tap, sink = self._queues[number]
        return Session(tap, connection, self._settings, sink, self._totals)

    def _run_alone(self, session: Session, ended: Ended) -> EtherwsError:
        """Run the only session of a link that has one connection for good."""
        reason: EtherwsError | None = None
        try:
            reason = session.run(prepared=True)
            ended(reason, session)
            return reason
        finally:
            session.close(reason)

    def _join(self, plan: MemberPlan, ended: Ended) -> None:
        """Connect one member after the other, each when its time has come."""
        founder = self._founder or Membership(0, 1)
        while True:
            number, seconds = plan.next()
            if self._changed.wait(None if seconds == math.inf else seconds):
                self._changed.clear()
                continue
            connection: Connection | None = None
            try:
                connection = self._servers.join(self._local.tap, Membership(number, self.count, founder.id))
                self._enter(number, connection, ended)
            except Exception as exc:
                if connection:
                    connection.close(CloseCode.GOING_AWAY)
                if self._leaving:
                    return
                # Also an error that nobody thought of: the others go on, and the next attempt follows.
                text = str(exc) if isinstance(exc, EtherwsError) else self.log.unexpected(exc)
                error = exc if isinstance(exc, ConnectError) else ConnectError(text)
                plan.failed(error)
                self.log.failed(number, error)
            else:
                plan.joined(number)
                self.log.joined(number)

    def _enter(self, number: int, connection: Connection, ended: Ended) -> None:
        """`connection` is this member from now on. Raises ConnectError or DeviceError if it cannot be."""
        if self._leaving:
            raise ConnectError("the link has ended meanwhile")
        if number not in self._queues:
            self._queues[number] = self._local.further_queue()
            self._hold_flows(self._queues[number][0])
        elif number not in self.live:
            self._queues[number][0].attach()
        if before := self.live.get(number):
            self._retired.append(before)
            self._beside.append(gevent.spawn(self._wait_for_quiet, before))
        self.live[number] = session = self._session(number, connection)
        self._running.append(gevent.spawn(self._carry, number, session, ended, True, before))

    def _wait_for_quiet(self, session: Session) -> None:
        """End a session that another has replaced, once nothing comes or goes by it any more."""
        until = monotonic() + RETIRED_MAX
        while monotonic() < until:
            gevent.sleep(QUIET)
            if session.silence >= QUIET and not session.waiting:
                break
        self._end_retired(session)

    def _end_retired(self, session: Session) -> None:
        session.end(ConnectionClosed("replaced by a newer connection", CloseCode.NORMAL, tell=REPLACED))

    def _carry(self, number: int, session: Session, ended: Ended, joining: bool, before: Session | None) -> None:
        """Run the session of a member to its end, in place of the one `before` if there is one."""
        reason: EtherwsError | None = None
        try:
            try:
                if before:
                    # Two cannot wait for the same queue.
                    before.retire()
                reason = session.run(linked=True, joining=joining, prepared=not joining)
            except EtherwsError as exc:
                reason = exc
            except Exception as exc:
                reason = ConnectionClosed(self.log.unexpected(exc))
            self._ended(number, session, reason, ended)
        finally:
            session.close(reason)
            if not self.live and not self._over.ready():
                self._over.set(self._reason)
            # The lists grow by one with each connection that is replaced.
            self._running = [each for each in self._running if each is not gevent.getcurrent()]
            self._beside = [each for each in self._beside if not each.ready()]

    def _ended(self, number: int, session: Session, reason: EtherwsError, ended: Ended) -> None:
        """The session of a member has ended."""
        if self.live.get(number) is not session:
            self._retired.remove(session)
        elif len(self.live) == 1:
            self._leaving, self._reason = True, self._reason or reason
            try:
                ended(self._reason, session)
            finally:
                del self.live[number]
            return
        else:
            del self.live[number]
            self._lost(number, session, reason)
        self.counts.over(session)

    def _lost(self, number: int, session: Session, reason: EtherwsError) -> None:
        """A member has ended, and others are there: the kernel gives them what it would have given this one."""
        if lost := self._queues[number][0].detach():
            self.counts.lost(QUEUE_LOST, lost)
            self._totals.drops[QUEUE_LOST] += lost
        if self._leaving:
            return
        code = reason.code if isinstance(reason, ConnectionClosed | ProtocolError) else CloseCode.INTERNAL_ERROR
        if code == CloseCode.SERVICE_RESTART and isinstance(reason, ConnectionClosed) and reason.reason == DRAINING:
            # It lets nobody in any more: the link goes to the next server as a whole.
            self._leaving, self._reason = True, reason
            for each in list(self.live.values()):
                each.end(ConnectionClosed("the server drains", CloseCode.GOING_AWAY))
            return
        if self._plan:
            self._plan.lost(number, code, session.age, at_once=isinstance(reason, NetworkChanged))
            self._changed.set()
        text = f"{reason}{self._losses.words(reason, session.age, session.silence)}"
        self._beside.append(gevent.spawn_later(SETTLED, self._say_lost, number, text))

    def _say_lost(self, number: int, why: str) -> None:
        """Log the loss of a member, unless the whole link is about to end."""
        if not self._leaving:
            self.log.lost(number, why, back=number in self.live)

    def _close_queues(self) -> None:
        """Leave the TAP with its first queue, attached, as it was before the link."""
        for number, (tap, _) in self._queues.items():
            if number:
                tap.close()
            else:
                with contextlib.suppress(DeviceError):
                    tap.attach()
