"""What an HTTP answer that is no 101 means, and what to try: our own hint, and beside it the server's own words.

Pure. Read next: answer_text.py, which finds the words; tls_refusals.py, for what goes wrong before HTTP; attempt.py,
the caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urljoin, urlsplit

from websockets.uri import WebSocketURI

from etherws.addresses import authority
from etherws.client import answer_text
from etherws.client.http_answer import HttpAnswer
from etherws.errors import ConnectError, NoSuchLink, NotAdmitted, printable

#: Seconds: the longest wait that a server can ask for with Retry-After (RFC 9110, section 10.2.3).
RETRY_AFTER_MAX = 300

_NO_TUNNEL = "that is a web server, and no tunnel is at {path}; are the host, the port and the path right?"
_BEHIND = "a proxy answers, but cannot reach etherws behind it; the proxy's log has the reason"

#: What the user can check after an answer with this status. {path} is the path that was asked for.
_HINTS = {
    200: _NO_TUNNEL,
    400: "does a proxy between drop headers, or speak HTTP/1.0? see docs/reverse-proxies.rst",
    404: "is the path right? it was asked for {path}; a proxy between may change it",
    405: _NO_TUNNEL,
    407: "a proxy on the way wants a login; name it by --proxy",
    409: "further connections of a link must reach the server that has the first one; see docs/resilience.rst",
    421: "it does not serve this name; is the URI's host right, and --sni?",
    426: "does a proxy between drop the Upgrade header? see docs/reverse-proxies.rst",
    429: "too many wrong passwords came from this address; wait some minutes",
    500: "the server's log has the reason",
    501: "it cannot carry a tunnel; is that an etherws server?",
    502: _BEHIND,
    503: "it has no free port, or is draining or stopping; the server's log has the reason",
    504: "a proxy answers, but got no answer from etherws behind it in time",
    # RFC 6585, section 6.
    511: "this network wants a login first; open any web page in a browser",
    # Not of a standard: how Cloudflare says that the server is down, away, or has no valid certificate.
    **dict.fromkeys((520, 521, 522, 523, 524, 525, 526), _BEHIND),
}

#: What etherws says if it has got no credentials (server/authenticate.py), and what that means if they were sent.
_NO_LOGIN = b"this server asks for "
_LOGIN_LOST = "it got no credentials, though they were sent; does a proxy between drop the Authorization header?"

#: By scheme of HTTP authentication: what we call it. The first is what was sent, the second what to give.
_LOGINS = {
    "basic": ("this user and password", "a user and password (--user)"),
    "bearer": ("this token", "a token (--token-file)"),
}


def refusal(
    answer: HttpAnswer, uri: WebSocketURI, *, body: bytes, authorization: str = "", secrets: Iterable[str] = ()
) -> ConnectError:
    """The error for an answer with another status than 101.

    `body` is the beginning of its body, `authorization` the Authorization header that was sent, empty if none. This and
    `secrets` are not shown if the body repeats them.
    """
    secret = (*answer_text.secrets_of(authorization), *secrets)
    if answer.status is None:
        return _not_http(answer, uri, secret)
    text = f"answered {answer.status_text}"
    if answer.status == 401:
        # Without the server's words, but for the number: it has just been told a secret.
        lost = bool(authorization) and body.startswith(_NO_LOGIN)
        why = _LOGIN_LOST if lost else _login_refused(answer, authorization.partition(" ")[0].lower())
        return NotAdmitted(f"{text}; {why}{answer_text.number(body, secret)}", kind=f"{text}; {why}")
    words = answer_text.words(answer, body, secret)
    said = f"; it says: {words}" if words else ""
    if answer.status == 403:
        kind = f"{text}; it does not let this client in"
        return NotAdmitted(kind + said, kind=kind)
    if 300 <= answer.status < 400:
        return _redirect(answer, uri, text)
    hint = _HINTS.get(answer.status, "").format(path=printable(uri.path))
    if answer.status == 400 and not uri.secure and answer_text.wants_tls(body):
        hint = f"this port speaks TLS: use {_with_tls(uri)}"
    kind = text + (hint and "; " + hint)
    error = (NoSuchLink if answer.status == 409 else ConnectError)(kind + said, kind=kind)
    if answer.status in (429, 503):
        seconds = answer.value("Retry-After")
        error.wait = float(min(int(seconds), RETRY_AFTER_MAX)) if re.fullmatch("[0-9]{1,9}", seconds) else 0.0
    return error


def _not_http(answer: HttpAnswer, uri: WebSocketURI, secrets: Iterable[str]) -> ConnectError:
    """The error for an answer that is not HTTP/1. Its words are not shown if they repeat one of the `secrets`: a
    program that echoes what it gets returns our request."""
    kind = "gave no valid answer to the upgrade"
    found = answer_text.spoken(answer.head)
    if found == "TLS":
        hint = f"this port speaks TLS: use {_with_tls(uri)}"
    elif found == "HTTP/2":
        hint = "it speaks HTTP/2 there; etherws needs HTTP/1.1"
    elif found:
        hint = f"it speaks {found} there; is the port right?"
    else:
        hint = "that is not HTTP; is the port right?"
    words = answer.head.decode(errors="replace").partition("\n")[0].strip()
    if found in ("TLS", "HTTP/2") or any(secret in words for secret in secrets if secret):
        words = ""
    said = f"; it says: {printable(words)[: answer_text.WORDS_MAX]}" if words else ""
    return ConnectError(f"{kind}: {hint}{said}", kind=f"{kind}: {hint}")


def _redirect(answer: HttpAnswer, uri: WebSocketURI, text: str) -> ConnectError:
    """The error for a redirect. Its query is not shown: a login page's is different each time, and may be secret."""
    here = f"{'https' if uri.secure else 'http'}://{authority(uri.host, uri.port)}{uri.path}"
    location = answer.value("Location").partition("?")[0]
    kind = f"{text}; etherws follows no redirects, name that URI"
    shown = f"{text} to {printable(location)}; etherws follows no redirects, name that URI"
    try:
        target = urlsplit(urljoin(here, location))
        if target.scheme == "https" and target.hostname == uri.host and not uri.secure:
            kind = f"{text} to https; use wss://"
            shown = kind + printable(target.netloc.rpartition("@")[2] + target.path)
    except ValueError:
        # A target that is no URI is only shown.
        pass
    return ConnectError(shown, kind=kind)


def _login_refused(answer: HttpAnswer, sent: str) -> str:
    """Which credentials were refused, and what the server asks for."""
    asked = sorted({value.split()[0].lower() for value in answer.values("WWW-Authenticate") if value})
    named = " or ".join(_LOGINS[scheme][1] for scheme in asked if scheme in _LOGINS)
    wants = f"it asks for {named or 'credentials of a kind that etherws does not have'}"
    if not sent:
        return wants
    what = _LOGINS[sent][0] if sent in _LOGINS else "the credentials in --header"
    refused = f"it does not accept {what}"
    return refused if sent in asked or not asked else f"{refused}; {wants}"


def _with_tls(uri: WebSocketURI) -> str:
    """The same URI with TLS, without its query."""
    return f"wss://{authority(uri.host, uri.port).removesuffix(':443')}{printable(uri.path)}"
