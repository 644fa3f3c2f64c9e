"""Who may ask what: at the control socket everything, since its file is for its user alone; at --monitor by a login.

A web page of another site must be able to do nothing at --monitor, even in the browser of who has a login there:
the Host header is checked (DNS rebinding), and so is where a POST comes from. Read next: application.py, which asks
here before anything else; control_socket.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from etherws.errors import Refused

#: What WSGI says of a request.
Environ = Mapping[str, Any]
Headers = list[tuple[str, str]]

#: Paths that are open to programs of this machine.
OPEN = ("/healthz", "/readyz", "/metrics")


class Access(Protocol):
    """One door."""

    def check(self, environ: Environ) -> None:
        """Raises Refused if this request may not have what it asks for."""

    def new_page(self) -> str:
        """The address of the page, with a new one-time token. Raises Refused."""

    def log_in(self, environ: Environ, token: str) -> Headers:
        """The headers that log in who has a one-time token. Raises Refused."""


class ControlAccess:
    """The control socket: who can open it may do everything."""

    def __init__(self, monitor: Access | None = None) -> None:
        """`monitor` is the other door, if there is one."""
        self._monitor = monitor

    def check(self, environ: Environ) -> None:
        """As Access.check()."""

    def new_page(self) -> str:
        """As Access.new_page()."""
        if self._monitor is None:
            raise Refused("409 Conflict", "there is no page: start etherws with --monitor 127.0.0.1:9402")
        return self._monitor.new_page()

    def log_in(self, environ: Environ, token: str) -> Headers:
        """As Access.log_in()."""
        raise Refused("404 Not Found", "nobody logs in here; the control socket is open to who can open its file")
