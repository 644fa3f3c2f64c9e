"""Who asks for a tunnel, decided before the 101: by Origin, client certificate, password or token.

Authenticator.authenticate() takes a request's WSGI environment and returns an Admission, or raises Refused; problem()
says whether that Admission would be given again. What an identity may do is access/policy.py's. Passwords are checked
in a thread, because bcrypt takes long and the event loop carries everybody's frames. Read next: login_queue.py,
origins.py, access/credential_files.py, application.py.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from time import monotonic, thread_time
from typing import Any

import gevent
from gevent.threadpool import ThreadPool

from etherws.access import certificates
from etherws.access.client_certificates import ClientCertificate
from etherws.access.credential_files import Passwords, Tokens
from etherws.addresses import plain
from etherws.close_codes import CloseCode
from etherws.errors import ConnectionClosed, Refused
from etherws.reloadable import Reloadable
from etherws.server import handshake
from etherws.server.forwarded import UNTRUSTED_PROXY
from etherws.server.http import PRESENCE
from etherws.server.login_queue import Limiter, LoginLimiter, LoginQueue
from etherws.server.origins import Origins
from etherws.server.own_names import OwnNames
from etherws.server.presence import UNKNOWN
from etherws.settings import ServerSettings

log = logging.getLogger(__name__)

#: A page in a browser cannot set headers. It offers a subprotocol of this name, followed by its token, beside the
#: subprotocol that it wants.
BEARER = "authorization.bearer."

#: Characters of an Authorization header after its scheme. A token of ours has 43; 1,024 leave room for long passwords.
AUTHORIZATION_MAX_CHARS = 1024

#: After a wrong password, the thread pauses this many times as long as the check took. So a flood of wrong passwords,
#: from any number of addresses, takes a quarter of one processor at most. After a right password there is no pause.
PAUSE_FACTOR = 3

#: The thread's nice value (setpriority(2)): frames come before logins.
THREAD_NICE = 10


@dataclass(frozen=True, eq=False)
class Admission:
    """Who was let in, and by what: enough to find out later whether he would still be.

    No secret: `token` and `password` are what Tokens.entry() and Passwords.entry() return.
    """

    identity: str | None = None
    certificate: ClientCertificate | None = None
    token: bytes | None = None
    password: bytes | None = None


class Authenticator:
    """Finds out who a client is, and refuses those that may not connect."""

    def __init__(self, settings: ServerSettings, limiter: Limiter | None = None) -> None:
        """`limiter` counts failed logins, by default those of this process. Raises SettingsError if a file cannot be
        used."""
        self._origins = Origins(settings.allow_origin, OwnNames())
        self._passwords: Reloadable[Passwords] | None = _file(Passwords, settings.htpasswd)
        self._tokens: Reloadable[Tokens] | None = _file(Tokens, settings.token_file)
        self._limiter = limiter or LoginLimiter()
        self._queue = LoginQueue()
        self._pool: ThreadPool | None = None

    @property
    def asks_login(self) -> bool:
        """Whether clients need a password or a token."""
        return bool(self._passwords or self._tokens)

    def reload(self) -> None:
        """Read the files again."""
        for file in (self._passwords, self._tokens):
            if file:
                file.reload()

    def files(self) -> tuple[object, ...]:
        """What the files of passwords and tokens contain now. If one has changed, it is another object."""
        return tuple(file.get() for file in (self._passwords, self._tokens) if file)

    def authenticate(self, environ: Mapping[str, Any]) -> Admission:
        """Who sent this request; an empty Admission if the server asks for nothing.

        Raises Refused: 403 for a web page that may not connect, or a certificate that has no name or does not hold; 401
        for a missing or wrong password or token; 429 after too many wrong ones; 503 if too many logins wait.
        """
        certificate: ClientCertificate | None = environ.get(certificates.CERTIFICATE)
        self._origins.check(environ, login=self.asks_login or certificate is not None)
        identity = self._check_certificate(certificate) if certificate else None
        if not self.asks_login:
            return Admission(identity, certificate)
        return replace(self._login(environ), certificate=certificate)

    def problem(self, admission: Admission) -> ConnectionClosed | None:
        """Why a client that was let in would not be any more; None if it would. May take 0.2 ms."""
        if admission.token and self._tokens:
            owner = self._tokens.get().owner(admission.token)
            if owner is None:
                return ConnectionClosed("its token was removed", CloseCode.POLICY_VIOLATION)
            if owner != admission.identity:
                # It may come back at once, by its new name.
                return ConnectionClosed("its token has another name now", CloseCode.SERVICE_RESTART)
        if admission.password and self._passwords:
            entry = self._passwords.get().entry(admission.identity or "")
            if entry != admission.password:
                change = "password was changed" if entry else "user was removed"
                return ConnectionClosed(f"its {change}", CloseCode.POLICY_VIOLATION)
        if admission.certificate and (problem := admission.certificate.problem()):
            return ConnectionClosed(f"its certificate does not hold: {problem}", CloseCode.POLICY_VIOLATION)
        return None

    def _check_certificate(self, certificate: ClientCertificate) -> str:
        """The client's name in its certificate. Raises Refused."""
        # TLS has verified it, but perhaps in an earlier session, which this one went on with.
        if problem := certificate.problem():
            raise Refused(
                "403 Forbidden",
                f"the client's certificate does not hold: {problem}",
                kind="certificate",
                warning=f"its certificate does not hold: {problem}",
            )
        identity = certificate.identity()
        if identity is None:
            text = "the client's certificate has no name: neither a SAN nor a CN"
            raise Refused("403 Forbidden", text, kind="certificate")
        return identity

    def _login(self, environ: Mapping[str, Any]) -> Admission:
        """Whose password or token the request has. Raises Refused."""
        kind, credentials = self._credentials(environ)
        usable = len(credentials) <= AUTHORIZATION_MAX_CHARS
        if kind == "bearer":
            # At once: this takes a microsecond, and nobody guesses a token. So a right one is taken in any case.
            admission = self._by_token(credentials) if usable else None
            if admission is None:
                self._check_limit(environ)
                self._limiter.failed(address(environ), monotonic())
        else:
            admission = self._by_password(environ, credentials if usable else "")
        if admission is None:
            what = "token" if kind == "bearer" else "user or password"
            raise self._unauthorized("wrong user, password or token", f"wrong {what}", f"login refused: wrong {what}")
        return admission

    def _credentials(self, environ: Mapping[str, Any]) -> tuple[str, str]:
        """The kind of the request's credentials, "basic" or "bearer", and the credentials as they were sent."""
        scheme, _, rest = environ.get("HTTP_AUTHORIZATION", "").strip(" \t").partition(" ")
        if not scheme and self._tokens and (offered := bearer(handshake.subprotocols(environ))):
            return "bearer", offered.removeprefix(BEARER)
        if not scheme:
            asked = {"a user and password": self._passwords, "a token": self._tokens}
            what = " or ".join(what for what in asked if asked[what])
            raise self._unauthorized(f"this server asks for {what}", "no credentials")
        kind = scheme.lower()
        if (kind == "basic" and self._passwords) or (kind == "bearer" and self._tokens):
            return kind, rest.strip(" \t")
        # Without the scheme's name: in a malformed header, a password may be in its place.
        raise self._unauthorized("this server does not accept credentials of that kind", "no credentials")

    def _by_token(self, token: str) -> Admission | None:
        assert self._tokens is not None
        entry = Tokens.entry(token)
        owner = self._tokens.get().owner(entry)
        return Admission(owner, token=entry) if owner else None

    def _by_password(self, environ: Mapping[str, Any], credentials: str) -> Admission | None:
        """Whose password it is; None if it is wrong. One at a time is checked."""
        source = address(environ)
        # Before the wait, and after it: of many attempts at once each counts the failures of those before it.
        self._check_limit(environ)
        with self._queue.turn(source, environ.get(PRESENCE, UNKNOWN)):
            self._check_limit(environ)
            admission, took = self._check_password(*_basic(credentials))
            if admission is None:
                self._limiter.failed(source, monotonic())
                gevent.sleep(PAUSE_FACTOR * took)
            else:
                self._queue.succeeded(source)
        return admission

    def _check_password(self, name: str, password: str) -> tuple[Admission | None, float]:
        """Whose password it is, and the processor's seconds that the check took."""
        assert self._passwords is not None
        if self._pool is None:
            self._pool = ThreadPool(1)
            if error := self._pool.apply(_be_nice):
                # The units in contrib/ forbid it. The kernel then shares the time among the threads as it does anyway.
                log.debug("passwords are checked with the usual priority: %s", error.strerror)
        # The file may change during the check: the entry is the one that was checked.
        passwords = self._passwords.get()
        passed, took = self._pool.apply(_timed, (passwords.check, name, password))
        return (Admission(name, password=passwords.entry(name)) if passed else None), took

    def _check_limit(self, environ: Mapping[str, Any]) -> None:
        """Raise Refused, 429, if the client's source has failed too often."""
        wait = self._limiter.wait(address(environ), monotonic())
        if wait <= 0:
            return
        hint = (
            "; it seems to be a reverse proxy: start the server with --trusted-proxy, or all clients behind it count"
            " as one"
        )
        more = hint if environ.get(UNTRUSTED_PROXY) else ""
        raise Refused(
            "429 Too Many Requests",
            "too many wrong passwords or tokens from this address",
            [("Retry-After", str(int(wait) + 1))],
            kind="too many failures",
            warning=f"login refused for {wait:.0f} s: too many wrong passwords or tokens{more}",
        )

    def _unauthorized(self, message: str, kind: str, warning: str = "") -> Refused:
        challenges = []
        if self._passwords:
            challenges.append(("WWW-Authenticate", 'Basic realm="etherws", charset="UTF-8"'))
        if self._tokens:
            challenges.append(("WWW-Authenticate", 'Bearer realm="etherws"'))
        return Refused("401 Unauthorized", message, challenges, kind=kind, warning=warning)


def bearer(offered: Iterable[str]) -> str | None:
    """The subprotocol that carries a browser's token, if the client offers one."""
    return next((name for name in offered if name.startswith(BEARER)), None)


def address(environ: Mapping[str, Any]) -> str:
    """The client's address, as logs show it."""
    return plain(str(environ.get("REMOTE_ADDR") or "a local client"))


def _be_nice() -> OSError | None:
    """Lower the priority of this thread; return why that cannot be. What a thread raises, gevent has logged as an
    unexpected error."""
    try:
        # On Linux each thread has its own nice value.
        os.setpriority(os.PRIO_PROCESS, 0, THREAD_NICE)
    except OSError as exc:
        return exc
    return None


def _timed(check: Callable[[str, str], bool], name: str, password: str) -> tuple[bool, float]:
    """What the check returns, and the seconds of this thread: on a busy machine they are fewer than on the clock."""
    began = thread_time()
    return check(name, password), thread_time() - began


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
