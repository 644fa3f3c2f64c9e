"""The one WSGI application: status, events, metrics and the live page, and what an operator may have etherws do.

It is the same on the control socket and at --monitor; access.py says who may ask what. Big answers are made in turns,
between which others' frames go on. Read next: orders.py, what a POST may ask for; subject.py, which is shown;
status.py, metrics.py, page.py and stream.py, which say it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from etherws.counters import Values
from etherws.errors import ClientGone, NoSuchClient, Refused
from etherws.observe import metrics, orders, page, status
from etherws.observe.access import LOGIN, NEW_PAGE, READING, Access, Environ, Headers
from etherws.observe.events import Events
from etherws.observe.http import THERE
from etherws.observe.pieces import in_pieces
from etherws.observe.stream import LivePage
from etherws.observe.subject import Subject

StartResponse = Callable[[str, Headers], object]

TEXT, JSON, STREAM = "text/plain; charset=utf-8", "application/json", "text/event-stream"

#: Fields of a query that are read; no path has more than two.
FIELDS_MAX = 10

#: Answers without end at once: pages and followers. Some connections stay for questions (http.py, CONNECTIONS_MAX).
STREAMS_MAX = 48

#: Headers of each answer, unless it has its own. The page has another policy (page.py).
_HEADERS = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    # One request for each connection: none is idle, and none is sent behind another.
    ("Connection", "close"),
)


@dataclass
class Answer:
    """What is sent. A body of pieces is made while it is sent; `endless` is one that only the client ends."""

    type: str
    body: bytes | Iterator[bytes] = b""
    headers: Headers = field(default_factory=list)
    status: str = "200 OK"
    endless: bool = False


@dataclass
class Streams:
    """How many answers without end there are now, at both doors."""

    count: int = 0


class Monitor:
    """Shows a subject at one door."""

    def __init__(
        self,
        subject: Subject,
        events: Events,
        access: Access,
        live: LivePage,
        streams: Streams | None = None,
        *,
        clients: bool = False,
    ) -> None:
        """`live` and `streams` are shared by the doors of a process. With `clients`, each client has metrics of its
        own."""
        self._subject, self._events, self._access, self._live = subject, events, access, live
        self._streams, self._clients = streams or Streams(), clients
        self._reads: dict[str, Callable[[Environ], Answer]] = {
            "/healthz": lambda _: Answer(TEXT, b"ok\n"),
            "/readyz": self._ready,
            "/metrics": self._metrics,
            "/status": lambda _: Answer(JSON, status.status(self._subject)),
            "/events": self._show_events,
            "/stream": self._stream,
            "/history": self._history,
            LOGIN: self._log_in,
        }

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        try:
            self._access.check(environ)
            answer = self._answer(environ)
            if answer.endless and self._streams.count >= STREAMS_MAX and environ["REQUEST_METHOD"] != "HEAD":
                raise Refused("503 Service Unavailable", "too many pages and followers are open; close some")
        except NoSuchClient as exc:
            answer = _refusal(environ, Refused("404 Not Found", str(exc)))
        except Refused as exc:
            answer = _refusal(environ, exc)
        headers = [("Content-Type", answer.type), *answer.headers]
        given = {name for name, _ in answer.headers}
        headers += [(name, value) for name, value in _HEADERS if name not in given]
        body = answer.body
        if isinstance(body, bytes):
            headers.append(("Content-Length", str(len(body))))
            body = iter((body,))
        start_response(answer.status, headers)
        if environ["REQUEST_METHOD"] == "HEAD":
            # A generator that has not begun has nothing to end.
            return iter(())
        return self._endless(environ, body) if answer.endless else in_pieces(body)

    def _answer(self, environ: Environ) -> Answer:
        """The answer to a request that may be asked. Raises Refused, NoSuchClient."""
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        read, order = self._reads.get(path), orders.ORDERS.get(path)
        if method == "POST":
            if path == NEW_PAGE:
                return Answer(JSON, _json({"address": self._access.new_page()}))
            if order:
                return Answer(JSON, _json(order(self._subject, orders.read(environ), self._access.name)))
        elif method in READING:
            if read:
                return read(environ)
            if found := page.asset(path):
                return _file(environ, *found)
        allowed = [*(("GET", "HEAD") if read else ()), *(("POST",) if order or path == NEW_PAGE else ())]
        if allowed:
            text = f"{path} takes {' and '.join(allowed)}"
            raise Refused("405 Method Not Allowed", text, [("Allow", ", ".join(allowed))])
        raise Refused("404 Not Found", "there is nothing at this path; try /status")

    def _ready(self, _: Environ) -> Answer:
        if reason := self._subject.not_ready():
            return Answer(TEXT, f"{reason}\n".encode(), status="503 Service Unavailable")
        return Answer(TEXT, b"ok\n")

    def _metrics(self, environ: Environ) -> Answer:
        accept = environ.get("HTTP_ACCEPT", "")
        return Answer(*metrics.metrics(self._subject, accept, clients=self._clients, events=self._events.counts))

    def _show_events(self, environ: Environ) -> Answer:
        query = _query(environ)
        last = _number(environ.get("HTTP_LAST_EVENT_ID") or "0", "Last-Event-ID")
        number = _number(query.get("since", str(last + 1 if last else 0)), "since")
        if query.get("follow") == "1" or STREAM in environ.get("HTTP_ACCEPT", ""):
            return Answer(STREAM, _sent_events(self._events, number), endless=True)
        found, following = self._events.since(number)
        return Answer(JSON, _listed(found, following, self._events.left_out(number)))

    def _stream(self, environ: Environ) -> Answer:
        last = str(_number(environ.get("HTTP_LAST_EVENT_ID") or "0", "Last-Event-ID") or "")
        return Answer(STREAM, self._live.stream(last), endless=True)

    def _history(self, environ: Environ) -> Answer:
        index = _query(environ).get("index")
        number = None if index is None else _number(index, "index")
        return Answer(JSON, _json(self._live.history(number)))

    def _log_in(self, environ: Environ) -> Answer:
        if environ["REQUEST_METHOD"] == "HEAD":
            # Some programs look at an address before its reader does. That must not use it up.
            return Answer(TEXT)
        headers = self._access.log_in(environ, _query(environ).get("token", ""))
        return Answer(TEXT, b"logged in\n", [*headers, ("Location", "/")], "303 See Other")

    def _endless(self, environ: Environ, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces, for as long as the client is there."""
        self._streams.count += 1
        try:
            while True:
                # It may be silent for a long time: who hangs up meanwhile makes room for others at once.
                with environ[THERE].required():
                    piece = next(pieces, None)
                if piece is None:
                    return
                yield piece
        except ClientGone:
            return
        finally:
            self._streams.count -= 1


def _file(environ: Environ, type: str, data: bytes, headers: Headers) -> Answer:
    """A file of the page, unless the browser has it already."""
    if (tag := dict(headers).get("ETag")) and environ.get("HTTP_IF_NONE_MATCH") == tag:
        return Answer(type, iter(()), headers, "304 Not Modified")
    return Answer(type, data, headers)


def _refusal(environ: Environ, refused: Refused) -> Answer:
    """What is said instead: a line of text to a person, JSON to a program that has asked for it."""
    asks = refused.status.startswith("401") and "text/html" in environ.get("HTTP_ACCEPT", "")
    if asks and (found := page.asset("login")):
        type_, data, headers = found
        return Answer(type_, data, [*headers, *refused.headers], refused.status)
    if environ["REQUEST_METHOD"] == "POST" or environ.get("PATH_INFO") in ("/status", "/events", "/history"):
        return Answer(JSON, _json({"error": str(refused)}), refused.headers, refused.status)
    return Answer(TEXT, f"{refused}\n".encode(), refused.headers, refused.status)


def _json(values: Values) -> bytes:
    return status.encode(values) + b"\n"


def _query(environ: Environ) -> dict[str, str]:
    """The fields of a query; the last of those with the same name. Raises Refused."""
    try:
        found = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError as exc:
        raise Refused("400 Bad Request", "the query has too many fields") from exc
    return {name: values[-1] for name, values in found.items()}


def _number(text: str, name: str) -> int:
    if not re.fullmatch("[0-9]{1,15}", text):
        raise Refused("400 Bad Request", f"{name} is a number of up to 15 digits")
    return int(text)


def _listed(found: list[Values], following: int, left_out: int) -> Iterator[bytes]:
    yield b'{"events": ['
    yield from status.listed(found)
    yield f'], "next": {following}, "left_out": {left_out}}}\n'.encode()


def _sent_events(events: Events, number: int) -> Iterator[bytes]:
    """Events as server-sent events (HTML Standard, section 9.2): each has its number as its id."""
    # So the client knows at once that it is heard.
    yield b":\n\n"
    for found in events.batches(number):
        yield b"".join(in_pieces(map(_sent_event, found))) or b":\n\n"


def _sent_event(values: Values) -> bytes:
    return f"id: {values['number']}\ndata: {json.dumps(values, default=str)}\n\n".encode()
