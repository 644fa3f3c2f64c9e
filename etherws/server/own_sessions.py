"""The sessions of this process, for observed.py: what each has to say of itself, and what all have counted.

Read next: tunnels.py, which has them; observed.py.
"""

from __future__ import annotations

from collections.abc import Callable

from etherws.counters import Values
from etherws.errors import NoSuchClient
from etherws.server.application import Application
from etherws.server.observed import Counted
from etherws.server.ports_api import PortApi
from etherws.server.refusals import refusals
from etherws.tunnel.session import totals_now


class OwnSessions:
    """Those of one application: an Inside of observed.py."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def count(self) -> Counted:
        """As Inside.count()."""
        return Counted(totals_now(self._application.totals), refusals.counts())

    def workers(self) -> list[Values]:
        """As Inside.workers(): there are none."""
        return []

    def look(self) -> Callable[[PortApi], Values]:
        """As Inside.look()."""
        return self._own_part

    def history(self, port: PortApi) -> Values:
        """As Inside.history()."""
        session = self._application.session_on(port)
        if session is None:
            raise NoSuchClient(f"no session is on {port.tap.name}")
        return session.history()

    def _own_part(self, port: PortApi) -> Values:
        session = self._application.session_on(port)
        return {"worker": None, **(session.status() if session else {})}
