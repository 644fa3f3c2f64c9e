"""The URI of a server: what is in it, and what it must not have. Pure: looks no name up.

The websockets library parses it (parse_uri); this does what is usual with curl beyond that: user and password, zones of
IPv6 addresses (RFC 6874), dots at the end of names, numbers for IPv4 addresses. Read next: attempt.py, which connects.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

from etherws.errors import SettingsError, printable

#: What a name may be made of, in ASCII; with the underscore, which names of machines have in practice. One dot may
#: end it (RFC 1034, section 3.1).
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?", re.ASCII)
_NAME_MAX = 254

#: The name of an interface (RFC 6874, section 2; Linux: IFNAMSIZ).
_ZONE = re.compile(r"[\w.~-]{1,15}", re.ASCII)

#: A part of an IPv4 address in a form of inet_aton(3): decimal, hexadecimal or octal.
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+", re.ASCII)

#: Characters that the two versions of IDNA write differently (UTS 46, section 7). The name could mean another server.
_AMBIGUOUS = "\u00df\u03c2\u200c\u200d"

#: What people write in place of our schemes.
_SCHEMES = {"http": "ws", "https": "wss"}


@dataclass
class ServerUri(WebSocketURI):
    """As parse_uri() returns it, without user information. `host` is in ASCII, an IPv4 address with four numbers."""

    #: The interface of a link-local IPv6 address. It means something on this machine only.
    zone: str = ""


def tls_name(host: str) -> str:
    """A host as TLS names it, for SNI and in certificates: without the dot that may end it (RFC 6066, section 3)."""
    return host[:-1] if host.endswith(".") else host


class _Mistake(ValueError):
    """A mistake in a URI. The text shows nothing of the URI, which may hold a password."""


def split_uri(text: str) -> tuple[ServerUri, str | None, str | None]:
    """A ws:// or wss:// URI without its user information, the user, and the password. Raises SettingsError."""
    # A variable of the environment may have a newline at its end.
    text = text.strip()
    # Everything before an @ may be a password, so the messages leave it out.
    shown = text.rpartition("@")[2]
    try:
        if any(char.isspace() or not char.isprintable() for char in text):
            raise _Mistake("a space or an unprintable character is in it; write a space as %20")
        parts = urlsplit(text)
        user, password = (
            part if part is None else unquote(part, errors="strict") for part in (parts.username, parts.password)
        )
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        _check_parts(bare)
        return _checked(parse_uri(bare.geturl())), user, password
    except (InvalidURI, ValueError) as exc:
        reason = exc.msg if isinstance(exc, InvalidURI) else str(exc)
        if "@" in text and ("#" in text or not isinstance(exc, _Mistake)):
            reason = "cannot be parsed; in the user and password, write / ? # @ : [ ] as %2F %3F %23 %40 %3A %5B %5D"
        raise SettingsError(f"--uri {shown!r}: {printable(reason)}; write ws://HOST/ or wss://HOST/") from None


def _check_parts(parts: SplitResult) -> None:
    """Raise ValueError for what parse_uri() lets pass, or does not explain."""
    if parts.scheme in _SCHEMES:
        raise _Mistake(f"{parts.scheme}:// is for web pages; the same server's tunnel is {_SCHEMES[parts.scheme]}://")
    if parts.scheme not in ("ws", "wss") and not parts.netloc:
        raise _Mistake("it has no scheme")
    if parts.netloc.count(":") > 1 and "[" not in parts.netloc:
        raise _Mistake("an IPv6 address stands in brackets, as in ws://[2001:db8::1]:8080/")
    if parts.port == 0:
        raise _Mistake("no server has port 0")
    if set(parts.hostname or "") & set(_AMBIGUOUS):
        raise _Mistake("its host has a character that two standards write differently; write it as xn--...")


def _checked(uri: WebSocketURI) -> ServerUri:
    """The URI with its host in the form that all others use. Raises ValueError."""
    host, zone = uri.host, ""
    if ":" in host:
        # RFC 6874 writes the zone behind %25; curl and others take a bare %, too.
        host, percent, zone = host.partition("%")
        zone = unquote(zone.removeprefix("25"))
        if percent and not (_ZONE.fullmatch(zone) and ipaddress.IPv6Address(host).is_link_local):
            raise _Mistake("only link-local addresses have a zone, and it is an interface: [fe80::1%25eth0]")
        ipaddress.IPv6Address(host)
    elif address := _ipv4(host):
        host = address
    elif not _NAME.fullmatch(host) or len(host) > _NAME_MAX:
        raise _Mistake("its host is neither a name nor an address")
    return ServerUri(uri.secure, host, uri.port, uri.path or "/", uri.query, zone=zone)


def _ipv4(host: str) -> str:
    """An IPv4 address in its usual form, from any form of inet_aton(3): 127.1, 0x7f000001. Empty for a name."""
    parts = host.split(".")
    if len(parts) > 4 or not all(map(_NUMBER.fullmatch, parts)):
        return ""
    numbers = [int(part, 16 if part[:2] in ("0x", "0X") else 8 if part[:1] == "0" else 10) for part in parts]
    # The last one fills what the others leave.
    *first, last = numbers
    if any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
        raise _Mistake("its host is not an IPv4 address: a number is too large")
    return str(ipaddress.IPv4Address(sum(number << (24 - 8 * at) for at, number in enumerate(first)) + last))
