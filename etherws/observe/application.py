"""The one WSGI application: status, events, metrics and the live page, and what an operator may have etherws do.

It is the same on the control socket and at --monitor; access.py says who may ask what. Each answer ends its
connection. Read next: subject.py, which is shown; status.py, metrics.py, page.py and stream.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from etherws.observe import status
from etherws.observe.access import Access, Environ
from etherws.observe.events import Events
from etherws.observe.subject import Subject

StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Monitor:
    """Shows a subject at one door."""

    def __init__(self, subject: Subject, events: Events, access: Access) -> None:
        self._subject, self._events, self._access = subject, events, access

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        path = environ["PATH_INFO"]
        if path == "/healthz":
            start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"ok\n"]
        if path == "/status":
            start_response("200 OK", [("Content-Type", "application/json")])
            return status.status(self._subject)
        if path == "/events":
            found, following = self._events.since(0)
            start_response("200 OK", [("Content-Type", "application/json")])
            return [status.encode({"events": found, "next": following})]
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"there is nothing here\n"]
