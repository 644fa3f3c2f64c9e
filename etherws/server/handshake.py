"""The server's side of the opening handshake (RFC 6455, section 4.2), over a WSGI environment.

Pure, and the same under every server: decides what is wrong with a request before anything is answered. It does not
negotiate: negotiation.py chooses the subprotocol. Read next: http.py, which checks the HTTP below.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

from etherws.errors import Refused

#: RFC 6455, section 1.3.
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: The version of WebSocket (RFC 6455, section 4.1).
VERSION = "13"

#: Where it is written how a proxy must be configured.
_HINTS = "see docs/reverse-proxies.rst"

#: The answer to a visitor with a browser.
_ABOUT = "this is etherws, an Ethernet tunnel: connect to it by 'etherws client --uri', or any WebSocket client"


def accept(environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Check an upgrade request; return the headers of the 101, without Sec-WebSocket-Protocol.

    Raises Refused with the status to answer, and a text that names the wrong header.
    """
    if "HTTP_UPGRADE" not in environ and "HTTP_SEC_WEBSOCKET_KEY" not in environ:
        raise _upgrade_required(_ABOUT)
    if environ.get("REQUEST_METHOD") != "GET":
        method = environ.get("REQUEST_METHOD")
        raise Refused("405 Method Not Allowed", f"a WebSocket begins with GET, not {method}", [("Allow", "GET")])
    if environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        raise _bad(
            f"a WebSocket needs HTTP/1.1, not {environ.get('SERVER_PROTOCOL')}; does a proxy on the way speak"
            f" HTTP/1.0? nginx: proxy_http_version 1.1; {_HINTS}"
        )
    if environ.get("HTTP_HOST", "").strip(" \t") == "" or "," in environ["HTTP_HOST"]:
        raise _bad("exactly one Host header is required")
    if "websocket" not in _tokens(environ, "HTTP_UPGRADE"):
        raise _upgrade_required(
            "the Upgrade header does not say 'websocket'; does a proxy on the way drop it? nginx: proxy_set_header"
            f" Upgrade $http_upgrade; {_HINTS}"
        )
    if "upgrade" not in _tokens(environ, "HTTP_CONNECTION"):
        raise _bad(
            "the Connection header does not say 'Upgrade'; does a proxy on the way drop it? nginx: proxy_set_header"
            f' Connection "upgrade"; {_HINTS}'
        )
    if environ.get("CONTENT_LENGTH", "").strip(" \t") not in ("", "0"):
        raise _bad("an upgrade request has no body, but Content-Length announces one")
    if "HTTP_TRANSFER_ENCODING" in environ:
        raise _bad("an upgrade request has no body, but Transfer-Encoding announces one")
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION", "").strip(" \t") != VERSION:
        raise Refused(
            "426 Upgrade Required",
            f"the Sec-WebSocket-Version header must be {VERSION}",
            [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", VERSION)],
        )
    if not _is_key(key(environ)):
        raise _bad("the Sec-WebSocket-Key header must be 16 bytes in base64")
    return [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept_value(key(environ)))]


def key(environ: Mapping[str, Any]) -> str:
    """The Sec-WebSocket-Key."""
    text: str = environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
    return text.strip(" \t")


def subprotocols(environ: Mapping[str, Any]) -> list[str]:
    """What the client offers in Sec-WebSocket-Protocol (RFC 6455, section 4.1). Compare whole names; case counts."""
    return [token.strip(" \t") for token in environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(",")]


def accept_value(nonce: str) -> str:
    """The Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455, section 4.2.2, step 5.4)."""
    return base64.b64encode(hashlib.sha1((nonce + _GUID).encode()).digest()).decode()


def _tokens(environ: Mapping[str, Any], name: str) -> list[str]:
    """The comma-separated tokens of a header, in lower case: compare whole names; case does not count."""
    return [token.strip(" \t").lower() for token in environ.get(name, "").split(",")]


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text.encode("ascii"), validate=True)) == 16
    except (binascii.Error, UnicodeEncodeError):
        return False


def _bad(message: str) -> Refused:
    return Refused("400 Bad Request", message)


def _upgrade_required(message: str) -> Refused:
    return Refused("426 Upgrade Required", message, [("Upgrade", "websocket"), ("Connection", "Upgrade")])
