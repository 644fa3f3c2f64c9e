"""``etherws client``: connect to a server, carry frames until the connection is lost, wait, and connect again.

The loop is Client._keep_connected(). Read next: servers.py, which connects; local_end.py, which has the TAP;
members.py, which carries the frames; backoff.py, how long to wait.
"""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

import gevent
from gevent.event import Event

from etherws.client.attempt import RemoteServer
from etherws.client.backoff import Backoff
from etherws.client.late_refusal import late_refusal
from etherws.client.local_end import LocalEnd
from etherws.client.losses import Losses
from etherws.client.member_plan import founding
from etherws.client.members import Members
from etherws.client.servers import Servers
from etherws.close_codes import DRAINING, CloseCode
from etherws.counters import Totals
from etherws.errors import ConnectError, ConnectionClosed, EtherwsError, NetworkChanged, NotAdmitted, ProtocolError
from etherws.events import CONNECT, FAILED, LOST, STOP, event
from etherws.features import Membership
from etherws.kernel.store import Store
from etherws.log_limit import LogLimit
from etherws.settings import ClientSettings, Retry
from etherws.tunnel import congestion
from etherws.tunnel.connection import Connection
from etherws.tunnel.session import Session

log = logging.getLogger(__name__)

#: Seconds that a session has for its closing handshake, of the 2 s in which SIGTERM ends the process.
STOP_TIMEOUT = 1.7

#: The same if another process goes on at once: longer than most paths need for the server's answer. A server that does
#: not answer keeps the port as well.
HAND_OVER_TIMEOUT = 0.5


class Client:
    """A TAP, and the loop that keeps it connected."""

    def __init__(
        self,
        servers: Sequence[RemoteServer],
        settings: ClientSettings,
        retry: Retry,
        on_failure: Callable[[str, ConnectError, Mapping[str, object]], None] | None = None,
        *,
        store: Store | None = None,
    ) -> None:
        """`servers` are tried in their order, starting with the first after each loss. `on_failure` is told of each
        failed attempt before the first connection: a text for the user, the error, and the `extra` of a record in the
        log about it. `store` keeps the TAP."""
        self._store = store or Store()
        self._servers, self._settings, self._retry, self._on_failure = Servers(servers), settings, retry, on_failure
        #: How the link is, for observed.py; and what is there now: the connections, and this machine's side.
        self.link = self._servers.link
        self.members: Members | None = None
        self.local: LocalEnd | None = None
        #: What all sessions have counted.
        self.totals = Totals()
        self._stopping = False
        # Why the server refused us at the last attempt; empty if it did not.
        self._refusal = ""
        self._retry_now = Event()
        self._losses = Losses(settings.ping_interval)
        self._log_limit = LogLimit(log)

    def retry(self, *, by_user: bool = True, urgent: bool = True) -> None:
        """Connect at once, and go on with the shortest wait. If connected: check soon whether the server is there.

        Without `by_user` the machine's network has changed. A server that refused us is not asked sooner then: the
        network was not the reason. A change that is not `urgent` counts for a connection only.
        """
        if self.members:
            self.members.probe(urgent=urgent, by_user=by_user)
        elif by_user or (urgent and not self._refusal):
            self._retry_now.set()

    @property
    def address(self) -> str:
        """The address of the server that was tried last; empty if it is not known, as behind a proxy."""
        return self._servers.address

    def log_counters(self) -> None:
        """Log what the link has carried and dropped."""
        if members := self.members:
            about = (members.server, members.several, members.age, members.counts.text())
            log.info("connected to %s%s for %.0f s%s", *about)
        else:
            log.info("not connected; trying again")

    def run(
        self,
        ready: Callable[..., object],
        stop: Event,
        opened: Callable[[], object] = lambda: None,
        reload: Callable[[Callable[[], object]], object] = lambda read_again: read_again(),
    ) -> None:
        """Keep the tunnel up until `stop` is set. `ready` is called once: with the result of the first attempt, or at
        the first connection if there is `on_failure`; as text, 0, and the `extra` of a record in the log. Before the
        first attempt, `opened` is called, when all is open that may need root. SIGHUP, by way of `reload`, and changes
        of the machine's network do what retry() does; SIGUSR1 logs counters.

        Raises AlreadyLinked if another client links the same bridge to one of the servers; DeviceError if the TAP or
        its filters cannot be made, at the start or after the TAP was deleted; SettingsError if the kernel does not have
        the congestion control; NotAdmitted if the servers refuse us and `retry.after_refusal` is off.
        """
        congestion.check(self._settings.congestion)
        gevent.signal_handler(signal.SIGHUP, reload, self.retry)
        gevent.signal_handler(signal.SIGUSR1, self.log_counters)
        local_end = LocalEnd(
            self._settings,
            self._store,
            self._servers.tokens(),
            lambda: self.members.local_addresses if self.members else (),
            lambda urgent: self.retry(by_user=False, urgent=urgent),
        )
        self._servers.go_on_with(local_end.tokens)
        with contextlib.closing(local_end) as local:
            self.local = local
            opened()
            loop: gevent.Greenlet[..., Exception | None] = gevent.spawn(self._loop, local, ready)
            gevent.wait((loop, stop), count=1)
            self._stopping = True
            self.link.stopping()
            local.leave()
            if self.members:
                outlives = self._store.outlives
                self.members.stop(restart=outlives)
                loop.join(timeout=HAND_OVER_TIMEOUT if outlives else STOP_TIMEOUT)
            loop.kill()
            if isinstance(loop.value, Exception):
                raise loop.value

    def _loop(self, local: LocalEnd, ready: Callable[..., object]) -> Exception | None:
        """As _keep_connected(), but return the error: gevent prints a traceback of one that leaves a greenlet."""
        try:
            self._keep_connected(local, ready)
        except Exception as exc:
            return exc
        return None

    def _keep_connected(self, local: LocalEnd, ready: Callable[..., object]) -> None:
        """Connect, carry frames, wait, and again, until run() stops it. Raises the error that ends the client.

        The log has one line when the connection is lost, one when it is there again, and between them one for each
        new reason why a server cannot be reached.
        """
        backoff = Backoff(self._retry)
        first_attempt, told = True, False
        while not self._stopping:
            local.tap.start_carrier_timeout(self._settings.carrier_timeout)
            try:
                founder = founding(self._settings, local.tap.multi_queue)
                server, connection = self._servers.connect(local.tap, founder, log_failure=not first_attempt)
            except ConnectError as exc:
                if isinstance(exc, NotAdmitted) and not self._retry.after_refusal:
                    raise
                text = f"{local.tap.present_name()} is up, but cannot connect to {exc}; retrying"
                about = event(FAILED, **self.link.failure(str(exc)))
                if not told and self._on_failure:
                    self._on_failure(text, exc, about)
                elif not told:
                    ready(text, 0, about)
                    told = True
                extra_wait = self._note_failure(exc)
            else:
                # Whoever hears of the connection may send at once. What comes from here on is carried.
                local.tap.begin(offload=connection.wire.offload)
                after = self._servers.failures.connected()
                text = f"{local.tap.present_name()} is up, connected to {server}{after}"
                about = event(CONNECT, **self.link.connected())
                if told:
                    log.info("%s", text, extra=about)
                else:
                    ready(text, 0, about)
                told = True
                local.hooks.connected(local.tap.name, server)
                extra_wait = self._carry(local, server, founder, connection, backoff)
                self._servers.failures.begin()
            first_attempt = False
            if not self._stopping:
                self._wait(backoff, extra_wait)

    def _note_failure(self, error: ConnectError) -> float:
        """Remember whether the server refused us; return the seconds to wait in addition."""
        if not isinstance(error, NotAdmitted):
            self._refusal = ""
            return error.wait
        self._refusal = str(error)
        # It will most likely refuse us again. Many attempts would only lock us out.
        return self._retry.longest_wait

    def _carry(
        self, local: LocalEnd, server: str, founder: Membership | None, connection: Connection, backoff: Backoff
    ) -> float:
        """Carry frames until the connection is lost; return the seconds to wait in addition before the next attempt.

        Raises DeviceError if the TAP was deleted and cannot be made again; NotAdmitted if the server refused us after
        its 101, and `retry.after_refusal` is off.
        """
        self._retry_now.clear()
        began = monotonic()
        try:
            reason = self._run_link(local, server, founder, connection)
        except EtherwsError:
            raise
        except Exception as exc:
            reason = ConnectionClosed(self._log_limit.unexpected(exc))
            about = event(LOST, **self.link.lost(str(reason), None, monotonic() - began))
            log.warning("lost %s: %s; trying again", server, reason, extra=about)
        if refusal := late_refusal(server, reason):
            if isinstance(refusal, NotAdmitted) and not self._retry.after_refusal:
                raise refusal
            if isinstance(refusal, NotAdmitted) and self._refusal != str(refusal):
                self._servers.refused(server, refusal)
            self.link.failed(refusal)
            return self._note_failure(refusal)
        self._refusal = ""
        code = reason.code if isinstance(reason, ConnectionClosed) else CloseCode.INTERNAL_ERROR
        backoff.session_ended(code, monotonic() - began)
        if isinstance(reason, NetworkChanged):
            self._retry_now.set()
        if code == CloseCode.SERVICE_RESTART and isinstance(reason, ConnectionClosed) and reason.reason == DRAINING:
            self._servers.drains()
        if isinstance(reason, ConnectionClosed) and reason.code == CloseCode.POLICY_VIOLATION:
            # Another client has our name. If we came back at once, we would end its connection, and it then ours.
            self._refusal = str(reason)
            return self._retry.longest_wait
        return 0.0

    def _run_link(
        self, local: LocalEnd, server: str, founder: Membership | None, connection: Connection
    ) -> EtherwsError:
        """Carry frames until the last connection has ended; return why. The TAP is there again afterwards, with its
        filters, or DeviceError comes."""
        settings, retry = self._settings, self._retry
        members = Members(local, self._servers, server, founder, settings, retry, self._losses, self.totals)
        self.members = members

        def ended(reason: EtherwsError, session: Session) -> None:
            code = reason.code if isinstance(reason, ConnectionClosed | ProtocolError) else None
            text = f"{reason}{self._losses.words(reason, session.age, session.silence)}"
            about = self.link.lost(text, code, members.age)
            if self._stopping:
                log.info(
                    "left %s after %.0f s%s", server, members.age, members.counts.text(), extra=event(STOP, **about)
                )
            # A refusal is logged as a failure to connect, and only once.
            elif not isinstance(late_refusal(server, reason), NotAdmitted):
                dropped = members.counts.summary(session)
                log.warning("lost %s: %s%s; trying again", server, text, dropped, extra=event(LOST, **about))

        try:
            return members.run(connection, ended)
        finally:
            self.members = None
            if not self._stopping:
                local.hooks.lost(local.tap.name)
            local.restore()

    def _wait(self, backoff: Backoff, extra: float) -> None:
        """Wait before the next attempt. A call of retry() ends the wait, and the next one is the shortest again."""
        wait = backoff.next(extra)
        self.link.waiting(wait)
        if self._retry_now.wait(wait):
            backoff.reset()
        self._retry_now.clear()
