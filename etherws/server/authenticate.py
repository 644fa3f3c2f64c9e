"""Who asks for a tunnel, decided before the 101: by Origin, client certificate, password or token.

Authenticator.authenticate() takes a request's WSGI environment and returns an identity, or raises Refused. The files
of passwords and tokens are access/credential_files.py's; what an identity may do is access/policy.py's. Passwords are
checked in a thread, because bcrypt takes long and the event loop carries everybody's frames. Read next: application.py.
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

#: A page in a browser cannot set headers. It offers a subprotocol of this name, followed by its token, beside the
#: subprotocol that it wants.
BEARER = "authorization.bearer."

#: Characters of an Authorization header after its scheme. A token of ours has 43; 1,024 leave room for long passwords.
AUTHORIZATION_MAX_CHARS = 1024

#: Failures that one source may make at once, and the seconds after which it may make one more.
FREE_FAILURES, FAILURE_INTERVAL = 5, 5.0

#: Sources whose failures are remembered. Past that, the oldest is forgotten.
MAX_SOURCES = 10_000

#: Logins that wait for the thread. One takes 60 ms at bcrypt's usual cost, so the last one waits less than 4 s.
MAX_WAITING_LOGINS = 16

#: After a wrong password, the thread pauses this many times as long as the check took. So a flood of wrong passwords,
#: from any number of addresses, takes a quarter of one processor at most. After a right password there is no pause.
PAUSE_FACTOR = 3

#: The thread's nice value (setpriority(2)): frames come before logins.
THREAD_NICE = 10


class LoginLimiter:
    """Counts failed logins by source: after FREE_FAILURES, one attempt each FAILURE_INTERVAL seconds is allowed."""

    def __init__(self) -> None:
        # For each source, the time at which its last failure is forgotten. Each failure adds FAILURE_INTERVAL to it.
        self._forgotten_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Seconds until an attempt from `address` is allowed; 0 if it is allowed now."""
        forgotten_at = self._forgotten_at.get(source_key(address), now)
        return max(0.0, forgotten_at - now - (FREE_FAILURES - 1) * FAILURE_INTERVAL)

    def failed(self, address: str, now: float) -> None:
        """Count a failed attempt from `address`."""
        source = source_key(address)
        self._forgotten_at[source] = max(self._forgotten_at.get(source, now), now) + FAILURE_INTERVAL
        self._forgotten_at.move_to_end(source)
        if len(self._forgotten_at) > MAX_SOURCES:
            self._forgotten_at.popitem(last=False)


class Authenticator:
    """Finds out who a client is, and refuses those that may not connect."""

    def __init__(self, settings: ServerSettings) -> None:
        """Raises SettingsError if a file cannot be used."""
        self._origins = frozenset(origin.lower().rstrip("/") for origin in settings.allow_origin)
        self._passwords: Reloadable[Passwords] | None = _file(Passwords, settings.htpasswd)
        self._tokens: Reloadable[Tokens] | None = _file(Tokens, settings.token_file)
        self._limiter = LoginLimiter()
        self._pool: ThreadPool | None = None
        self._one_at_a_time = BoundedSemaphore(1)
        self._waiting = 0

    @property
    def asks_login(self) -> bool:
        """Whether clients need a password or a token."""
        return bool(self._passwords or self._tokens)

    def reload(self) -> None:
        """Read the files again."""
        for file in (self._passwords, self._tokens):
            if file:
                file.reload()

    def authenticate(self, environ: Mapping[str, Any]) -> str | None:
        """The identity of the client that sent this request; None if the server asks for none.

        Raises Refused: 403 for a web page of another site, or a certificate without a name; 401 for a missing or wrong
        password or token; 429 after too many wrong ones; 503 if too many logins wait.
        """
        self._check_origin(environ)
        identity = None
        if certificates.CERTIFICATE in environ:
            identity = certificates.identity_of(environ[certificates.CERTIFICATE])
            if identity is None:
                raise Refused("403 Forbidden", "the client's certificate has no name: neither a SAN nor a CN")
        if self.asks_login:
            identity = self._login(environ)
        return identity

    def _check_origin(self, environ: Mapping[str, Any]) -> None:
        """Refuse a web page of another site: the browser would send its saved password for this server with the page's
        request (RFC 6455, section 10.2)."""
        origin = environ.get("HTTP_ORIGIN", "").strip(" \t").lower()
        # Browsers send a URL with a scheme, or null. etherws 0.2 sends a host alone, which no web page can send.
        if not origin or origin in self._origins or "*" in self._origins or not ("://" in origin or origin == "null"):
            return
        if _same_site(origin, environ.get("HTTP_HOST", "").strip(" \t").lower()):
            return
        log.warning("%s: a page of %s was refused; --allow-origin would allow it", address(environ), printable(origin))
        raise Refused("403 Forbidden", "pages of this origin may not connect; see --allow-origin")

    def _login(self, environ: Mapping[str, Any]) -> str:
        """The identity that the request's password or token belongs to. One login at a time is checked."""
        kind, credentials = self._credentials(environ)
        source = address(environ)
        if self._waiting >= MAX_WAITING_LOGINS:
            raise Refused("503 Service Unavailable", "too many logins at once; try again later", [("Retry-After", "2")])
        self._waiting += 1
        try:
            with self._one_at_a_time:
                # After the wait, so that of many attempts at once each counts the failures of those before it.
                now = monotonic()
                if (wait := self._limiter.wait(source, now)) > 0:
                    raise Refused(
                        "429 Too Many Requests",
                        "too many wrong passwords or tokens from this address",
                        [("Retry-After", str(int(wait) + 1))],
                    )
                identity = self._check(kind, credentials) if len(credentials) <= AUTHORIZATION_MAX_CHARS else None
                if identity is None:
                    self._limiter.failed(source, now)
                    gevent.sleep(PAUSE_FACTOR * (monotonic() - now))
        finally:
            self._waiting -= 1
        if identity is None:
            log.warning("%s: login refused: wrong %s", source, "token" if kind == "bearer" else "user or password")
            raise self._unauthorized("wrong user, password or token")
        return identity

    def _credentials(self, environ: Mapping[str, Any]) -> tuple[str, str]:
        """The kind of the request's credentials, "basic" or "bearer", and the credentials as they were sent."""
        scheme, _, rest = environ.get("HTTP_AUTHORIZATION", "").strip(" \t").partition(" ")
        if not scheme and self._tokens and (offered := bearer(handshake.subprotocols(environ))):
            return "bearer", offered.removeprefix(BEARER)
        if not scheme:
            raise self._unauthorized("this server asks for a user and password, or a token")
        kind = scheme.lower()
        if (kind == "basic" and self._passwords) or (kind == "bearer" and self._tokens):
            return kind, rest.strip(" \t")
        # Without the scheme's name: in a malformed header, a password may be in its place.
        raise self._unauthorized("this server does not accept credentials of that kind")

    def _check(self, kind: str, credentials: str) -> str | None:
        """The identity that the credentials belong to; None if they are wrong."""
        if kind == "bearer":
            assert self._tokens is not None
            return self._tokens.get().name_of(credentials)
        assert self._passwords is not None
        name, password = _basic(credentials)
        if self._pool is None:
            self._pool = ThreadPool(1)
            # On Linux each thread has its own nice value.
            self._pool.apply(os.setpriority, (os.PRIO_PROCESS, 0, THREAD_NICE))
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
    """The subprotocol that carries a browser's token, if the client offers one."""
    return next((name for name in offered if name.startswith(BEARER)), None)


def address(environ: Mapping[str, Any]) -> str:
    """The client's address, as logs show it."""
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
    """User and password (RFC 7617, section 2). A malformed text is treated as a wrong password."""
    try:
        name, _, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return "", ""
    return name, password


def _same_site(origin: str, host: str) -> bool:
    """Whether `origin` and the request's `host` are the same host and port."""
    try:
        page, here = urlsplit(origin), urlsplit(f"//{host}")
        # Behind a proxy that ends TLS the request's own scheme is unknown. The page's scheme gives the default port.
        default = {"http": 80, "https": 443}.get(page.scheme)
        return bool(page.hostname) and (page.hostname, page.port or default) == (here.hostname, here.port or default)
    except ValueError:
        return False
