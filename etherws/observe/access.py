"""Who may ask what: at the control socket everything, since its file is for its user alone; at --monitor by a login.

A web page of another site must be able to do nothing at --monitor, also in the browser of somebody who has a login:
the Host header is checked (DNS rebinding), and where a request comes from. Read next: logins.py, which knows who is
logged in; application.py, which asks here before anything else.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Any, Protocol

from etherws.addresses import is_address, plain
from etherws.errors import Refused
from etherws.observe.logins import Logins

#: What WSGI says of a request, and headers of an answer.
Environ = Mapping[str, Any]
Headers = list[tuple[str, str]]

#: Paths that are open to programs of this machine.
OPEN = frozenset({"/healthz", "/readyz", "/metrics"})

#: Where who has a one-time token logs in.
LOGIN = "/login"

#: Where an address of the page is made.
NEW_PAGE = "/page"

#: Methods that change nothing.
READING = frozenset({"GET", "HEAD"})

#: A Host header (RFC 9110, section 7.2). Two of them come as one, with a comma between.
_HOST = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<host>[a-z0-9._-]+))(?::[0-9]{1,5})?")

#: Headers by which a proxy says that it has a client: such a request is not this machine's own.
_PROXIES = ("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP", "HTTP_X_FORWARDED")


class Access(Protocol):
    """One door."""

    #: What the log calls it.
    name: str

    def check(self, environ: Environ) -> None:
        """Raise Refused if this request may not have what it asks for."""

    def new_page(self) -> str:
        """The address of the page, with a new one-time token. Raises Refused."""

    def log_in(self, environ: Environ, token: str) -> Headers:
        """The headers that log in who has a one-time token. Raises Refused."""


class ControlAccess:
    """The control socket: who can open it may do everything."""

    name = "the control socket"

    def __init__(self, monitor: Access | None = None) -> None:
        """`monitor` is the other door, if there is one."""
        self._monitor = monitor

    def check(self, environ: Environ) -> None:
        """As Access.check()."""

    def new_page(self) -> str:
        """As Access.new_page()."""
        if self._monitor is None:
            raise Refused("409 Conflict", "there is no page; start etherws with --monitor 9402, for example")
        return self._monitor.new_page()

    def log_in(self, environ: Environ, token: str) -> Headers:
        """As Access.log_in()."""
        raise Refused("404 Not Found", "this socket asks for no login")


class MonitorAccess:
    """--monitor: programs of this machine may read a little, and who is logged in everything."""

    def __init__(
        self,
        authority: str,
        names: Iterable[str],
        logins: Logins,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`authority` is how addresses of the page name this machine; `names` are those that a Host header may have,
        beside localhost and every IP address. `clock` gives seconds."""
        self.name = f"--monitor {authority}"
        self._authority, self._names = authority, {"localhost", *(name.lower() for name in names)}
        self._logins, self._clock = logins, clock

    def check(self, environ: Environ) -> None:
        """As Access.check()."""
        self._check_host(environ)
        _check_site(environ)
        path, reading = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"] in READING
        if reading and (path == LOGIN or (path in OPEN and _is_local(environ))):
            return
        if self._logins.knows(environ.get("HTTP_COOKIE", "")):
            if path == NEW_PAGE and not reading:
                raise Refused("403 Forbidden", "only the control socket gives addresses of the page")
            if not reading:
                _check_origin(environ)
            return
        self._check_token(environ)
        if not reading:
            raise Refused("403 Forbidden", "a token may only read; log in by an address of etherws page")

    def new_page(self) -> str:
        """As Access.new_page()."""
        return f"http://{self._authority}{LOGIN}?token={self._logins.new_token(self._clock())}"

    def log_in(self, environ: Environ, token: str) -> Headers:
        """As Access.log_in()."""
        # A right one counts in any case, since nobody guesses one: else wrong ones of another user of this machine, or
        # of whoever comes by the same proxy, would keep the operator out.
        source, now = _peer(environ), self._clock()
        cookie = self._logins.log_in(token, now)
        if not cookie:
            self._wait(source, now)
            self._logins.failed(source, now)
            raise Refused(
                "401 Unauthorized",
                "this address has been used, or is over a minute old; etherws page prints another one",
            )
        # Lax would send it with links of other sites. Without Max-Age it goes with the browser.
        return [("Set-Cookie", f"{cookie}; Path=/; HttpOnly; SameSite=Strict")]

    def _check_host(self, environ: Environ) -> None:
        """Raise Refused for a name that is not ours. A page of another site that has its name lead to this machine
        could else read what is shown here. A browser always sends the header; only programs leave it out."""
        text = environ.get("HTTP_HOST", "").lower()
        if not text:
            return
        found = _HOST.fullmatch(text)
        if not found or not (is_address(found["six"] or found["host"]) or found["host"] in self._names):
            raise Refused(
                "421 Misdirected Request",
                "this name is not known here; use an IP address, or start etherws with --monitor NAME:PORT",
            )

    def _check_token(self, environ: Environ) -> None:
        """Raise Refused unless there is a token of --monitor-token-file."""
        source, now = _peer(environ), self._clock()
        password = _password(environ.get("HTTP_AUTHORIZATION", ""))
        headers = [("WWW-Authenticate", 'Basic realm="etherws", charset="UTF-8"')] if self._logins.has_tokens else []
        if password is not None:
            self._wait(source, now)
            if self._logins.is_token(password):
                return
            self._logins.failed(source, now)
        raise Refused("401 Unauthorized", "log in by an address that etherws page prints on this machine", headers)

    def _wait(self, source: str, now: float) -> None:
        """Raise Refused if there were too many wrong tokens from an address."""
        if seconds := self._logins.wait(source, now):
            raise Refused(
                "429 Too Many Requests",
                "too many wrong tokens came from this address; try again later",
                [("Retry-After", str(int(seconds) + 1))],
            )


def _check_site(environ: Environ) -> None:
    """Raise Refused for what a page of another site asks for. It may only lead its reader here
    (Fetch Metadata Request Headers, sections 2.1 and 2.2)."""
    if environ.get("HTTP_SEC_FETCH_SITE", "none") in ("cross-site", "same-site") and not (
        environ["REQUEST_METHOD"] in READING and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
    ):
        raise Refused("403 Forbidden", "pages of other sites get nothing here")


def _check_origin(environ: Environ) -> None:
    """Raise Refused unless our own page sends this. Browsers say so in a header that no page can set; older ones have
    only Origin. A content type of its own keeps forms of other sites out in addition (Fetch, section 3.2.6)."""
    site = environ.get("HTTP_SEC_FETCH_SITE")
    ours = f"{environ['wsgi.url_scheme']}://{environ.get('HTTP_HOST', '')}"
    if site != "same-origin" if site else environ.get("HTTP_ORIGIN") != ours:
        raise Refused("403 Forbidden", "only the page of this server may ask for this")
    if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused("415 Unsupported Media Type", "send application/json")


def _peer(environ: Environ) -> str:
    return plain(environ.get("REMOTE_ADDR", ""))


def _is_local(environ: Environ) -> bool:
    """Whether a program of this machine asks, and not a proxy here for somebody else."""
    if any(name.startswith(_PROXIES) for name in environ):
        return False
    peer = _peer(environ).partition("%")[0]
    return is_address(peer) and ipaddress.ip_address(peer).is_loopback


def _password(header: str) -> str | None:
    """The password of an Authorization header (RFC 7617); None if it has none."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        _, colon, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return password if colon else ""
