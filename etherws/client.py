"""``etherws client``: reach the server, carry frames, and reach it again, for ever.

Read next: connect.py, which is one attempt, and session.py, which carries.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from time import monotonic

import gevent
from gevent.event import Event

from etherws import congestion
from etherws.connect import Connector
from etherws.errors import ConnectError, EtherwsError, LinkClosed, NotAdmitted
from etherws.link import Link
from etherws.ports import Standing
from etherws.session import Session
from etherws.settings import DeviceSettings, Retry
from etherws.websocket import POLICY_VIOLATION

log = logging.getLogger(__name__)

#: A session of this many seconds was a success: the next attempt starts with the shortest wait again.
STEADY = 10.0

#: Seconds that a session has to say good-bye, of the 2 s in which SIGTERM ends the process.
STOP_TIMEOUT = 1.7


class Client:
    """A TAP, and what keeps it connected."""

    def __init__(self, connector: Connector, settings: DeviceSettings, retry: Retry) -> None:
        self._connector, self._settings, self._retry = connector, settings, retry
        self._session: Session | None = None
        self._stopping = False

    def run(self, ready: Callable[[str], None], stop: Event) -> None:
        """Keep the tunnel up until `stop` is set. `ready` is told, once, how the first attempt went.

        Raises DeviceError if the TAP cannot be made, at the start or after it was deleted; SettingsError if this kernel
        has no such congestion control; NotAdmitted if the server refuses us and that is not to be tried again.
        """
        congestion.check(self._settings.congestion)
        device = Standing(self._settings)
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
            device.close()

    def _keep(self, device: Standing, ready: Callable[[str], None]) -> EtherwsError | None:
        """Connect, carry, and again. The log has one line when the server is lost, and one when it is there."""
        report: Callable[[str], None] | None = ready
        server, wait, refused = self._connector.name, self._retry.first, ""
        while True:
            begin, least = monotonic(), 0.0
            try:
                link = self._connector.connect()
            except ConnectError as exc:
                admitted = not isinstance(exc, NotAdmitted)
                if not (admitted or self._retry.refused):
                    return exc
                # Who is refused once will be again: no sooner than need be, and no lock-out by our doing.
                least = exc.wait if admitted else self._retry.most
                if report:
                    report(f"{device.tap.name} is up, but cannot connect to {server}: {exc}; trying on")
                else:
                    new = not admitted and str(exc) != refused
                    log.log(logging.WARNING if new else logging.DEBUG, "cannot connect to %s: %s", server, exc)
                refused = "" if admitted else str(exc)
            else:
                refused = ""
                (report or log.info)(f"{device.tap.name} is up, connected to {server}")
                try:
                    reason = self._carry(device, link)
                except EtherwsError as exc:
                    return exc
                if self._stopping:
                    return None
                if monotonic() - begin > STEADY:
                    wait = self._retry.first
                if isinstance(reason, LinkClosed) and reason.code == POLICY_VIOLATION:
                    # Another client has our name: to come back at once would only throw it out in turn.
                    least = self._retry.most
            report = None
            # Jitter, or all clients of a server that restarts come back at once.
            gevent.sleep(random.uniform(0.5, 1.0) * wait + least)
            wait = min(2 * wait, self._retry.most)

    def _carry(self, device: Standing, link: Link) -> EtherwsError:
        self._session = session = Session(device.tap, link)
        reason: EtherwsError | None = None
        try:
            reason = session.run()
            if not self._stopping:
                log.warning("lost %s: %s%s; trying again", self._connector.name, reason, session.summary())
            return reason
        finally:
            session.close(reason)
            self._session = None
            device.check()
