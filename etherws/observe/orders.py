"""What an operator may have etherws do: end a client's sessions, stop, read its files again, drain.

Each is a POST with a small JSON object. The log says once who has asked: here, or in the subject's own line of what it
does. Read next: subject.py, which does it; application.py.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import gevent

from etherws.counters import Values
from etherws.errors import Refused, printable
from etherws.observe.access import Environ
from etherws.observe.subject import Subject

log = logging.getLogger(__name__)

#: Bytes of a body, and seconds that it may take. An order has a hundred, and comes with the request.
BODY_MAX, BODY_TIMEOUT = 4096, 10.0

#: Seconds that an order may name: a day.
SECONDS_MAX = 86_400.0

#: Characters of a client's name: more than an identity has (access/credential_files.py, NAME_MAX).
CLIENT_MAX = 300


def read(environ: Environ) -> Values:
    """The object in a request's body; empty without a body. Raises Refused."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        raise Refused("411 Length Required", "send the body with Content-Length")
    # http.py has checked that it is a number.
    length = int(environ.get("CONTENT_LENGTH") or "0")
    if length > BODY_MAX:
        raise Refused("413 Content Too Large", f"an order has at most {BODY_MAX} bytes")
    try:
        with gevent.Timeout(BODY_TIMEOUT, TimeoutError()):
            data = environ["wsgi.input"].read(length)
    except TimeoutError as exc:
        raise Refused("408 Request Timeout", f"the body did not come within {BODY_TIMEOUT:g} s") from exc
    except OSError as exc:
        raise Refused("400 Bad Request", "the body ended too soon") from exc
    try:
        found = json.loads(data) if data else {}
    except (ValueError, RecursionError) as exc:
        raise Refused("400 Bad Request", "the body is not JSON") from exc
    if not isinstance(found, dict):
        raise Refused("400 Bad Request", "the body is not a JSON object")
    return found


def _kick(subject: Subject, said: Values, door: str) -> Values:
    _only(said, "client", "seconds")
    client, seconds = said.get("client"), _seconds(said)
    if not isinstance(client, str) or not 1 <= len(client) <= CLIENT_MAX:
        raise Refused("400 Bad Request", f"client is missing, or is not a text of up to {CLIENT_MAX} characters")
    return {"ended": subject.kick(client, seconds, door)}


def _stop(subject: Subject, said: Values, door: str) -> Values:
    _only(said)
    log.info("asked by %s to stop", door)
    subject.stop()
    return {}


def _reload(subject: Subject, said: Values, door: str) -> Values:
    _only(said)
    log.info("asked by %s to reload, as by SIGHUP", door)
    subject.reload()
    return {}


def _drain(subject: Subject, said: Values, door: str) -> Values:
    _only(said, "seconds")
    subject.drain(_seconds(said), door)
    return {}


#: What is done at each path: it gets what was said in the body, and the name of the door for the log. Returns the
#: answer; raises Refused and NoSuchClient.
ORDERS: dict[str, Callable[[Subject, Values, str], Values]] = {
    "/kick": _kick,
    "/stop": _stop,
    "/reload": _reload,
    "/drain": _drain,
}


def _only(said: Values, *names: str) -> None:
    if unknown := set(said) - set(names):
        known = " and ".join(names) or "nothing"
        raise Refused("400 Bad Request", f"{printable(min(unknown))!r} is not known; write {known}")


def _seconds(said: Values) -> float:
    value: Any = said.get("seconds", 0)
    # True is a number to Python.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused("400 Bad Request", "seconds is not a number")
    if not 0 <= value <= SECONDS_MAX:
        raise Refused("400 Bad Request", f"seconds is out of range; write 0 to {SECONDS_MAX:g}")
    return float(value)
