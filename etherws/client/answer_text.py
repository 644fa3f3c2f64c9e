"""What a stranger's answer says in words: the line of an error's body, and what it is that does not speak HTTP.

Pure. The words go into the log, so they are one line, short and printable. Read next: http_answer.py, which reads the
body; refusals.py, which shows the words beside our own hint.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable

from etherws.client.http_answer import HttpAnswer
from etherws.errors import printable

#: Characters of a server's own words that are shown.
WORDS_MAX = 120

#: What servers say if they get HTTP without TLS on a port for TLS: nginx, Apache, and Go's (Caddy, Traefik).
_TLS_PORT = re.compile(
    rb"plain HTTP request was sent to HTTPS port|speaking plain HTTP to an SSL|request to an HTTPS serv"
)

#: How answers begin that are not HTTP/1: TLS records (RFC 8446, section 5.1), SSH (RFC 4253, section 4.2), mail and FTP
#: (RFC 5321, section 4.2; RFC 959, section 4.2), HTTP/2 (a SETTINGS frame comes first: RFC 9113, section 3.4).
_PROTOCOLS = (
    (re.compile(rb"[\x15\x16]\x03[\x00-\x04]"), "TLS"),
    (re.compile(rb"SSH-"), "SSH"),
    (re.compile(rb"220[ -]"), "the protocol of a mail or FTP server"),
    (re.compile(rb"\x00..\x04|HTTP/[23]", re.DOTALL), "HTTP/2"),
)


#: The number of a refusal, at the end of the line of an etherws server (server/refusals.py).
_REFUSAL = re.compile(r" \(refusal [0-9a-f]{8}\)$")


def words(answer: HttpAnswer, body: bytes, secrets: Iterable[str] = ()) -> str:
    """The first line of an error's text, or the title of its page; empty if it has none.

    `secrets` are what we sent: a line that repeats one of them is not shown.
    """
    if answer.value("Content-Encoding").lower() not in ("", "identity"):
        return ""
    kind = answer.value("Content-Type").partition(";")[0].strip().lower()
    # The end may be cut within a character.
    text = _title(body) if body.lstrip()[:1] == b"<" or "html" in kind else _first_line(body.decode(errors="replace"))
    text = " ".join(text.removeprefix("\ufeff").split())
    if not kind.startswith("text/") and not (text.isprintable() and "\ufffd" not in text):
        return ""
    if any(secret in text for secret in secrets if secret):
        return ""
    if len(text) <= WORDS_MAX:
        return printable(text)
    # By the number the server's log is searched.
    found = _REFUSAL.search(text)
    end = f"...{found[0] if found else ''}"
    return printable(text[: WORDS_MAX - len(end)] + end)


def number(body: bytes, secrets: Iterable[str] = ()) -> str:
    """The number of a refusal in the body, as " (refusal 3f2a91c4)"; empty if it has none, or repeats a secret."""
    found = _REFUSAL.search(_first_line(body.decode(errors="replace")).rstrip())
    return found[0] if found and not any(secret in found[0] for secret in secrets if secret) else ""


def secrets_of(authorization: str) -> tuple[str, ...]:
    """What is secret in the value of an Authorization header: its credentials, and the password in them."""
    credentials = authorization.partition(" ")[2]
    try:
        password = base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        password = ""
    return credentials, password


def wants_tls(body: bytes) -> bool:
    """Whether the body of a 400 says that this port is for TLS."""
    return bool(_TLS_PORT.search(body))


def spoken(data: bytes) -> str:
    """What the peer speaks in place of HTTP/1, by its first bytes; empty if nobody knows."""
    return next((name for pattern, name in _PROTOCOLS if pattern.match(data)), "")


def _first_line(text: str) -> str:
    """The first line that has a letter or a digit: JSON's may be a brace alone."""
    return next((line for line in text.splitlines() if any(map(str.isalnum, line))), "")


def _title(page: bytes) -> str:
    """The title of a page in HTML; empty if it has none. Each step goes forward only, whatever the page holds."""
    lower = page.lower()
    begin = lower.find(b">", lower.find(b"<title")) + 1 if b"<title" in lower else 0
    end = lower.find(b"</title", begin)
    return html.unescape(page[begin:end].decode(errors="replace")) if 0 < begin <= end else ""
