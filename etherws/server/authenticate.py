"""Who asks for a tunnel, decided before the 101: Origin, client certificate, password or token.

Gate.admit() is given a request's WSGI environment and returns an identity, or raises Refused. What is known of each
name is in access/credential_files.py's files; what a name may do is access/policy.py's. A password takes a thread to
check, in which bcrypt computes while the event loop carries everybody's frames.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent.lock import BoundedSemaphore
from gevent.threadpool import ThreadPool

from etherws.access import certificates
from etherws.access.credential_files import Passwords, Tokens
from etherws.addresses import plain, source_key
from etherws.errors import Refused, printable
from etherws.reloadable import Reloadable
from etherws.server import handshake
from etherws.settings import ServerSettings

log = logging.getLogger(__name__)

#: A browser can set no header; it offers this subprotocol with its token behind, beside the one that it wants.
BEARER = "authorization.bearer."

#: Characters of an Authorization header. A token has 43; whatever is longer was not made by us.
HEADER_MAX = 1024

#: Failures that a source address has free, and seconds until it has one more.
FAILURES, PAUSE = 5, 5.0

#: Addresses whose failures are remembered; past that the oldest is forgotten.
SOURCES = 10_000

#: Logins that wait for the thread. It takes 60 ms for each at bcrypt's usual cost, so the last waits below 4 s.
WAITING = 16

#: How much longer than it took to find a password wrong nothing else is looked at: a flood of wrong ones, from however
#: many addresses, has a quarter of a processor at most. Right ones follow each other at once.
REST = 3

#: How much the thread yields to everything else on the machine (setpriority(2)): frames come first.
NICE = 10


class Slowdown:
    """Failures by source address: after FAILURES one attempt each PAUSE seconds is looked at."""

    def __init__(self) -> None:
        # When the last failure will be forgotten. One number says all: each failure adds PAUSE to it.
        self._until: OrderedDict[str, float] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Seconds until an attempt from `address` may be looked at; 0 for at once."""
        return max(0.0, self._until.get(source_key(address), now) - now - (FAILURES - 1) * PAUSE)

    def failed(self, address: str, now: float) -> None:
        """An attempt from `address` was looked at, and failed."""
        source = source_key(address)
        self._until[source] = max(self._until.get(source, now), now) + PAUSE
        self._until.move_to_end(source)
        if len(self._until) > SOURCES:
            self._until.popitem(last=False)


class Gate:
    """Decides who passes."""

    def __init__(self, settings: ServerSettings) -> None:
        """Raises SettingsError if a file cannot be used."""
        self._origins = frozenset(origin.lower().rstrip("/") for origin in settings.allow_origin)
        self._passwords: Reloadable[Passwords] | None = _file(Passwords, settings.htpasswd)
        self._tokens: Reloadable[Tokens] | None = _file(Tokens, settings.token_file)
        self._slowdown = Slowdown()
        self._pool: ThreadPool | None = None
        self._one_at_a_time = BoundedSemaphore(1)
        self._waiting = 0

    @property
    def guarded(self) -> bool:
        """Whether a password or a token is asked for."""
        return bool(self._passwords or self._tokens)

    def reload(self) -> None:
        """Read the files again."""
        for file in (self._passwords, self._tokens):
            if file:
                file.reload()

    def admit(self, environ: Mapping[str, Any]) -> str | None:
        """The identity of whoever sent this request; None if the server asks for none.

        Raises Refused: 403 for a page of another site, or a certificate that names nobody; 401 for a missing or wrong
        password or token; 429 if there were too many wrong ones; 503 if too many wait.
        """
        self._check_origin(environ)
        identity = None
        if certificates.CERTIFICATE in environ:
            identity = certificates.owner(environ[certificates.CERTIFICATE])
            if identity is None:
                raise Refused("403 Forbidden", "the client's certificate names nobody: it has neither a SAN nor a CN")
        if self.guarded:
            identity = self._login(environ)
        return identity

    def _check_origin(self, environ: Mapping[str, Any]) -> None:
        """Refuse a page of another site: a browser sends what it remembers of us with it (RFC 6455, section 10.2)."""
        origin = environ.get("HTTP_ORIGIN", "").strip(" \t").lower()
        # Browsers send a scheme or null; etherws 0.2 a host alone, by which no page can pass itself off.
        if not origin or origin in self._origins or "*" in self._origins or not ("://" in origin or origin == "null"):
            return
        if _same_site(origin, environ.get("HTTP_HOST", "").strip(" \t").lower()):
            return
        log.warning("%s: a page of %s was refused; --allow-origin would admit it", address(environ), printable(origin))
        raise Refused("403 Forbidden", "pages of this origin may not connect; see --allow-origin")

    def _login(self, environ: Mapping[str, Any]) -> str:
        scheme, _, rest = environ.get("HTTP_AUTHORIZATION", "").strip(" \t").partition(" ")
        rest = rest.strip(" \t")
        if not scheme and self._tokens and (offered := bearer(handshake.subprotocols(environ))):
            scheme, rest = "bearer", offered.removeprefix(BEARER)
        if not scheme:
            raise self._unauthorized("this server asks for a user and password, or a token")
        kind = scheme.lower()
        if kind == "basic" and self._passwords:
            name, password = _basic(rest)
        elif kind == "bearer" and self._tokens:
            name, password = "", rest
        else:
            # Not by name: in a header that is malformed, a password may stand in its place.
            raise self._unauthorized("this server does not take credentials of that kind")
        source = address(environ)
        if self._waiting >= WAITING:
            raise Refused("503 Service Unavailable", "too many logins at once; try again", [("Retry-After", "2")])
        self._waiting += 1
        try:
            with self._one_at_a_time:
                # Inside, so that attempts that came at once count one another's failures.
                now = monotonic()
                if (wait := self._slowdown.wait(source, now)) > 0:
                    raise Refused(
                        "429 Too Many Requests",
                        "too many wrong passwords or tokens from this address",
                        [("Retry-After", str(int(wait) + 1))],
                    )
                identity = self._check(kind, name, password) if len(rest) <= HEADER_MAX else None
                if identity is None:
                    self._slowdown.failed(source, now)
                    gevent.sleep(REST * (monotonic() - now))
        finally:
            self._waiting -= 1
        if identity is None:
            log.warning("%s: login refused: wrong %s", source, "token" if kind == "bearer" else "user or password")
            raise self._unauthorized("wrong user, password or token")
        return identity

    def _check(self, kind: str, name: str, password: str) -> str | None:
        if kind == "bearer":
            assert self._tokens is not None
            return self._tokens.get().owner(password)
        assert self._passwords is not None
        if self._pool is None:
            self._pool = ThreadPool(1)
            # Of this thread alone: on Linux each has its own.
            self._pool.apply(os.setpriority, (os.PRIO_PROCESS, 0, NICE))
        passed = self._pool.apply(self._passwords.get().check, (name, password))
        return name if passed else None

    def _unauthorized(self, message: str) -> Refused:
        challenges = []
        if self._passwords:
            challenges.append(("WWW-Authenticate", 'Basic realm="etherws", charset="UTF-8"'))
        if self._tokens:
            challenges.append(("WWW-Authenticate", 'Bearer realm="etherws"'))
        return Refused("401 Unauthorized", message, challenges)


def bearer(offered: Iterable[str]) -> str | None:
    """That of these subprotocols by which a browser brings its token, if there is one."""
    return next((name for name in offered if name.startswith(BEARER)), None)


def address(environ: Mapping[str, Any]) -> str:
    """The client's address; for logs as well."""
    return plain(str(environ.get("REMOTE_ADDR") or "a local client"))


def _file(kind: Any, path: str | None) -> Reloadable[Any] | None:
    if not path:
        return None

    def load() -> Any:
        found = kind.load(path)
        for warning in found.warnings:
            log.warning("%s", warning)
        return found

    return Reloadable(load, [path])


def _basic(text: str) -> tuple[str, str]:
    """User and password (RFC 7617, section 2). What is malformed is a wrong password like any other."""
    try:
        name, _, password = base64.b64decode(text[:HEADER_MAX], validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return "", ""
    return name, password


def _same_site(origin: str, host: str) -> bool:
    """Whether a page of `origin` came from the `host` that it talks to, with the same port."""
    try:
        page, here = urlsplit(origin), urlsplit(f"//{host}")
        # Behind a proxy that ends TLS we do not see the scheme, but the page's tells which port needs no name.
        default = {"http": 80, "https": 443}.get(page.scheme)
        return bool(page.hostname) and (page.hostname, page.port or default) == (here.hostname, here.port or default)
    except ValueError:
        return False
