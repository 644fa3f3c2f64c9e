"""The server's end of a check (``etherws check URI``): a session that measures the path, and touches no LAN.

It has no port, no TAP and no identity's connection. It counts what the client sends, sends back what it is asked for,
and stays behind everybody else's frames: for some seconds, at a bounded rate, one at a time. docs/wire.rst, "A check",
is the specification. Read next: checks.py, who may begin; tunnel/check_traffic.py; check/path/measure.py, the other
end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic, monotonic_ns
from typing import NoReturn

import gevent
from gevent.event import AsyncResult, Event

from etherws import events, features
from etherws.access.policy import Profile
from etherws.close_codes import CloseCode
from etherws.errors import ConnectionClosed, DeviceError, EtherwsError, NoPort, ProtocolError, Refused
from etherws.kernel import links
from etherws.server import authenticate, handshake, negotiation, takeover
from etherws.server.checks import IDLE_SECONDS_MAX, SECONDS_MAX
from etherws.server.http import UPGRADE
from etherws.server.port import ClientKey
from etherws.server.ports_api import CheckApi, PortsApi
from etherws.server.takeover import Environ, Headers
from etherws.settings import ServerSettings
from etherws.tunnel.check_frames import (
    SEND_SECONDS_MAX,
    SIZE_MAX,
    SIZE_MIN,
    UNANSWERED_MAX,
    Kind,
    Message,
    Report,
    write,
)
from etherws.tunnel.check_traffic import Bulk, CheckSender, Count
from etherws.tunnel.connection import Connection
from etherws.tunnel.direction import until_error
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.tcp_facts import slow_start_after_idle
from etherws.tunnel.turns import LastAccount, Turn

log = logging.getLogger(__name__)

#: Bits per second each way, where the policy says less or nothing. Faster paths are not what people have trouble with,
#: and a check should leave a server of 10 Gbit/s to its tunnels.
RATE_MAX = 1_000_000_000

#: Bytes that the client may send on a silent connection: some questions, but no bulk.
IDLE_BYTES_MAX = 64 * 1024


def wanted(environ: Environ) -> str | None:
    """Which kind of check a request asks for, features.CHECK or features.IDLE; None if it asks for a tunnel."""
    return None if takeover.EARLY_101 in environ else negotiation.check_wanted(environ)


class Responder:
    """Runs the checks of one server."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        #: Set when a check is over: its session.
        self._sessions: dict[Event, CheckSession] = {}

    def stop(self) -> list[Event]:
        """End those that run. Each is over when its event is set."""
        for session in self._sessions.values():
            session.end(ConnectionClosed("this side is stopping", CloseCode.GOING_AWAY))
        return list(self._sessions)

    def run(
        self, environ: Environ, headers: Headers, client: ClientKey, profile: Profile, ports: PortsApi, kind: str
    ) -> None:
        """Run one client's check of this kind. `headers` are those of the 101. Raises Refused if none may begin now;
        then no 101 was sent."""
        if not self._settings.check:
            raise Refused("403 Forbidden", "this server has checks turned off (--no-check)", kind="check")
        try:
            check = ports.checks.begin(kind, client.identity, client.address)
        except NoPort as exc:
            raise _cannot_begin() from exc
        try:
            self._run(environ, headers, client, profile, ports, check, kind)
        finally:
            check.end()

    def _run(
        self,
        environ: Environ,
        headers: Headers,
        client: ClientKey,
        profile: Profile,
        ports: PortsApi,
        check: CheckApi,
        kind: str,
    ) -> None:
        try:
            pacer = check.pacer(profile.rate_up) if profile.rate_up else None
        except DeviceError as exc:
            raise _cannot_begin() from exc
        found = links.find(ports.name)
        bearer = authenticate.bearer(handshake.subprotocols(environ))
        mtu = profile.mtu or (found.mtu if found else None)
        full = check.full and not profile.bridge
        agreed = negotiation.negotiate(environ, self._settings.wire, bearer, mtu, kind, full=full)
        stream, early = environ[UPGRADE](headers + agreed.headers)
        payer = LastAccount(f"check of {client.source}")
        connection = Connection(
            stream,
            server=True,
            wire=agreed.version,
            congestion=self._settings.congestion,
            early=early,
            name=client.label,
            payer=payer,
        )
        connection.limit_rate(pacer)
        seconds, size = (SECONDS_MAX, None) if kind == features.CHECK else (IDLE_SECONDS_MAX, IDLE_BYTES_MAX)
        session = CheckSession(connection, Turn(payer), profile, size)
        over, began, reason = Event(), monotonic(), None
        self._sessions[over] = session
        try:
            reason = session.run(seconds)
        finally:
            self._log(client, kind, session, monotonic() - began, reason)
            try:
                session.close(reason)
            finally:
                del self._sessions[over]
                over.set()

    def _log(
        self, client: ClientKey, kind: str, session: CheckSession, seconds: float, reason: EtherwsError | None
    ) -> None:
        fields = {
            "identity": client.identity,
            "address": client.address,
            "check": kind,
            "seconds": round(seconds, 3),
            "sent": session.sent,
            "received": session.received,
            "reason": str(reason or "ended"),
        }
        text = "%s checked the path for %.0f s: received %d bytes, sent %d: %s"
        words = (client.label, seconds, session.received, session.sent, fields["reason"])
        log.info(text, *words, extra=events.event(events.CHECK, **fields))


class CheckSession:
    """One check, on a connection of its own. `received` counts the bytes of the client's packets."""

    def __init__(
        self,
        connection: Connection,
        turn: Turn,
        profile: Profile,
        size: int | None = None,
        sleep: Callable[[float], object] = gevent.sleep,
    ) -> None:
        """`turn` is for the greenlet that sends. `profile` has the rates. With a `size` the client may send so many
        bytes and no bulk. `sleep` waits for so many seconds."""
        self._connection, self._profile, self._size, self._sleep = connection, profile, size, sleep
        # The rate-up is the connection's: its owner's other connections count for it.
        self._up, self._down = Pacer(RATE_MAX), Pacer(min(RATE_MAX, profile.rate_down or RATE_MAX))
        self._sender = CheckSender(connection, turn)
        self._count = Count()
        self._end: AsyncResult[EtherwsError] = AsyncResult()
        self.received = 0

    @property
    def sent(self) -> int:
        """Bytes of packets that were sent."""
        return self._sender.sent

    def run(self, seconds: float) -> EtherwsError:
        """Answer until either side ends, or for so many seconds. Return the reason."""
        greenlets = [gevent.spawn(until_error, work, self.end) for work in (self._receive, self._sender.run)]
        try:
            reason = self._end.get(timeout=seconds)
        except gevent.Timeout:
            reason = ConnectionClosed(f"a check takes {seconds:g} s at most", CloseCode.POLICY_VIOLATION)
        finally:
            gevent.killall(greenlets)
        assert reason is not None
        # A traceback would keep all of this in memory.
        reason.__cause__ = reason.__context__ = None
        return reason.with_traceback(None)

    def end(self, reason: EtherwsError) -> None:
        """End run(); it returns `reason`, unless there was one before."""
        if not self._end.ready():
            self._end.set(reason)

    def close(self, reason: EtherwsError | None) -> None:
        """End the connection. The peer is told the close code, and its mistake if it made one."""
        code = reason.code if isinstance(reason, ProtocolError | ConnectionClosed) else CloseCode.INTERNAL_ERROR
        self._connection.close(code, str(reason) if isinstance(reason, ProtocolError) else "")

    def _receive(self) -> NoReturn:
        connection = self._connection
        try:
            while True:
                packets = connection.recv()
                size = sum(map(len, packets))
                self.received += size
                if self._size is not None and self.received > self._size:
                    raise _wrong(f"more than {self._size} bytes on a silent connection")
                for message in self._count.take(packets, monotonic_ns()):
                    self._answer(message, monotonic_ns())
                del packets
                now = monotonic()
                if delay := self._up.wait(size, now):
                    connection.end_turn()
                    self._sleep(delay)
        finally:
            connection.end_turn()

    def _answer(self, message: Message, now: int) -> None:
        """Do what a message of the client's asks for, which came at `now`. Raises ProtocolError."""
        if self._sender.waiting >= UNANSWERED_MAX:
            raise _wrong(f"more than {UNANSWERED_MAX} requests that wait for their answers")
        if message.kind is Kind.PROBE:
            self._probe(message, now)
        elif self._size is not None:
            raise _wrong(f"{message.kind.name} on a silent connection")
        elif message.kind is Kind.ASK:
            self._tell(message, *self._count.taken())
        elif message.kind is Kind.SEND:
            if self._sender.busy or not 0 < message.value <= SEND_SECONDS_MAX * 1e6:
                raise _wrong(f"a request to send for {message.value} microseconds, or while this side sends already")
            bulk = Bulk(message.value / 1e6, [self._down])
            self._sender.begin(bulk, lambda: self._tell(message, bulk.size, bulk.first, bulk.last))
        else:
            raise _wrong(f"{message.kind.name}, which only a server sends")

    def _probe(self, message: Message, came: int) -> None:
        if not SIZE_MIN <= message.value <= SIZE_MAX:
            raise _wrong(f"a probe that asks for {message.value} bytes; {SIZE_MIN} to {SIZE_MAX} can be")

        def make(now: int) -> bytes:
            round_trip = int(self._connection.tcp_facts().round_trip * 1e6)
            answer = Message(Kind.ANSWER, message.number, message.sent, came, now, message.size, round_trip)
            return write(answer, message.value)

        self._sender.say(make)

    def _tell(self, request: Message, size: int, first: int, last: int) -> None:
        """Answer by a report of so many bytes of bulk, from the first to the last, in nanoseconds."""

        def make(_: int) -> bytes:
            return write(Message(Kind.REPORT, request.number, request.sent, first, last, size, report=self._report()))

        self._sender.say(make)

    def _report(self) -> Report:
        facts, profile = self._connection.tcp_facts(), self._profile
        return Report(
            limit_up=min(RATE_MAX, profile.rate_up or RATE_MAX),
            limit_down=self._down.rate,
            policy_up=(profile.rate_up or RATE_MAX) < RATE_MAX,
            policy_down=self._down.rate < RATE_MAX,
            retransmitted=facts.retransmitted,
            segments=facts.segments,
            shortest=int(facts.shortest * 1e6),
            slow_start=slow_start_after_idle(),
            congestion=facts.congestion,
        )


def _cannot_begin() -> Refused:
    return Refused("503 Service Unavailable", "no check can begin now", [("Retry-After", "10")], kind="check")


def _wrong(text: str) -> ProtocolError:
    return ProtocolError(CloseCode.PROTOCOL_ERROR, f"in a check: {text}")
