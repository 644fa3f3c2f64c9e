"""``etherws client``: reach a server, carry frames, and reach one again, for ever.

Read next: attempt.py, which is one attempt, and tunnel/session.py, which carries. network_monitor.py hears of the
machine's network.
"""

from __future__ import annotations

import logging
import random
import signal
from collections.abc import Callable, Sequence
from time import monotonic

import gevent
from gevent.event import Event

from etherws.client.attempt import Connector
from etherws.errors import ConnectError, ConnectionClosed, EtherwsError, NetworkChanged, NotAdmitted
from etherws.kernel import network_monitor
from etherws.settings import DeviceSettings, Retry
from etherws.tunnel import congestion
from etherws.tunnel.connection import Connection
from etherws.tunnel.frames import POLICY_VIOLATION
from etherws.tunnel.interface import Standing
from etherws.tunnel.session import Session

log = logging.getLogger(__name__)

#: A session of this many seconds was a success: the next attempt starts with the shortest wait again.
STEADY = 10.0

#: Seconds that a session has to say good-bye, of the 2 s in which SIGTERM ends the process.
STOP_TIMEOUT = 1.7


class Client:
    """A TAP, and what keeps it connected."""

    def __init__(self, servers: Sequence[Connector], settings: DeviceSettings, retry: Retry) -> None:
        """`servers` are tried in their order, after each loss from the first."""
        self._servers, self._settings, self._retry = servers, settings, retry
        self._session: Session | None = None
        self._stopping = False
        self._unwanted = ""
        self._hurry = Event()

    def retry(self, *, asked: bool = True) -> None:
        """Try at once, with the shortest wait to follow; or, if connected, have the server give a sign of life soon.

        If nobody `asked`, but the path may have changed: not where we were refused. That had nothing to do with it.
        """
        if self._session:
            self._session.probe()
        elif asked or not self._unwanted:
            self._hurry.set()

    def run(self, ready: Callable[[str], None], stop: Event) -> None:
        """Keep the tunnel up until `stop` is set. `ready` is told, once, how the first attempt went. SIGHUP, or a
        change of the machine's network, is as retry().

        Raises DeviceError if the TAP cannot be made, at the start or after it was deleted; SettingsError if this kernel
        has no such congestion control; NotAdmitted if the servers refuse us and that is not to be tried again.
        """
        congestion.check(self._settings.congestion)
        device = Standing(self._settings)
        watcher = gevent.spawn(network_monitor.watch, lambda: device.tap.name, lambda: self.retry(asked=False))
        gevent.signal_handler(signal.SIGHUP, self.retry)
        try:
            keeper: gevent.Greenlet[..., EtherwsError | None] = gevent.spawn(self._keep, device, ready)
            gevent.wait((keeper, stop), count=1)
            self._stopping = True
            if self._session:
                self._session.stop()
                keeper.join(timeout=STOP_TIMEOUT)
            keeper.kill()
            if isinstance(keeper.value, EtherwsError):
                raise keeper.value
        finally:
            watcher.kill()
            device.close()

    def _keep(self, device: Standing, ready: Callable[[str], None]) -> EtherwsError | None:
        """Connect, carry, and again. The log has one line when the server is lost, and one when it is there."""
        report: Callable[[str], None] | None = ready
        wait = self._retry.first_wait
        while True:
            device.tap.unlinked(self._settings.carrier_timeout)
            least = 0.0
            try:
                server, link = self._reach()
            except ConnectError as exc:
                refused = isinstance(exc, NotAdmitted)
                if refused and not self._retry.after_refusal:
                    return exc
                # Who is refused once will be again: no sooner than need be, and no lock-out by our doing.
                least = self._retry.longest_wait if refused else exc.wait
                if report:
                    report(f"{device.tap.name} is up, but cannot connect to {exc}; trying on")
                elif refused and self._unwanted != str(exc):
                    log.warning("cannot connect to %s", exc)
                self._unwanted = str(exc) if refused else ""
            else:
                begin, self._unwanted = monotonic(), ""
                (report or log.info)(f"{device.tap.name} is up, connected to {server}")
                try:
                    reason = self._carry(device, server, link)
                except EtherwsError as exc:
                    return exc
                if self._stopping:
                    return None
                if monotonic() - begin > STEADY:
                    wait = self._retry.first_wait
                if isinstance(reason, NetworkChanged):
                    self._hurry.set()
                if isinstance(reason, ConnectionClosed) and reason.code == POLICY_VIOLATION:
                    # Another client has our name: to come back at once would only throw it out in turn.
                    least, self._unwanted = self._retry.longest_wait, str(reason)
            report = None
            # Jitter, or all clients of a server that restarts come back at once.
            hurry = self._hurry.wait(random.uniform(0.5, 1.0) * wait + least)
            self._hurry.clear()
            wait = self._retry.first_wait if hurry else min(2 * wait, self._retry.longest_wait)

    def _reach(self) -> tuple[str, Connection]:
        """The first server that takes us, in their order. Raises ConnectError with what each of them failed of;
        NotAdmitted if all of them refuse us."""
        failures = []
        for server in self._servers:
            try:
                return server.name, server.connect()
            except ConnectError as exc:
                log.debug("cannot connect to %s: %s", server.name, exc)
                failures.append((server.name, exc))
        kind = NotAdmitted if all(isinstance(exc, NotAdmitted) for _, exc in failures) else ConnectError
        failure = kind("; nor to ".join(f"{name}: {exc}" for name, exc in failures))
        failure.wait = min(exc.wait for _, exc in failures)
        raise failure

    def _carry(self, device: Standing, server: str, link: Connection) -> EtherwsError:
        self._hurry.clear()
        self._session = session = Session(device.tap, link, self._settings)
        reason: EtherwsError | None = None
        try:
            reason = session.run()
            if not self._stopping:
                log.warning("lost %s: %s%s; trying again", server, reason, session.summary())
            return reason
        finally:
            session.close(reason)
            self._session = None
            device.check()
