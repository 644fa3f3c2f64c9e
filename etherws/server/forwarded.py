"""The client's address and scheme, from the headers of trusted reverse proxies: X-Forwarded-For and Forwarded.

Pure: changes a WSGI environment. Headers of anybody else are ignored. trusted_proxies.py calls it for each request. The
PROXY protocol, which comes before HTTP, is in proxy_protocol.py. Source: RFC 7239.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, NamedTuple

from etherws.addresses import UNIX, Networks, canonical, plain
from etherws.errors import ProxyError
from etherws.settings import HTTP_TOKEN

#: environ[UNTRUSTED_PROXY] is true if the peer seems to be a reverse proxy that --trusted-proxy does not name.
UNTRUSTED_PROXY = "etherws.untrusted_proxy"

#: environ[PROXY] is the trusted reverse proxy that named the client, if one did: its address, or UNIX.
PROXY = "etherws.proxy"

#: Bytes of one header that are accepted. A proxy adds 50 at most; thousands are an attack.
FIELD_MAX_BYTES = 4096

#: One ``name=value`` of Forwarded, and the separator after it (RFC 7239, section 4).
_PAIR = re.compile(rf"""[ \t]*({HTTP_TOKEN})=({HTTP_TOKEN}|"(?:[^"\\]|\\.)*")[ \t]*(;|,|$)""")

#: An address of a node, with or without a port (RFC 7239, section 6). X-Forwarded-For has IPv6 without brackets too.
_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?|([0-9.]+)(?::\d{1,5})?|([0-9A-Fa-f:.]+)", re.ASCII)


def follow(environ: MutableMapping[str, Any], trusted: Networks) -> None:
    """Set REMOTE_ADDR and wsgi.url_scheme to the client's, if the request came from a trusted proxy that tells them.
    PROXY is then that proxy. Set UNTRUSTED_PROXY if it seems to come from one that is not trusted.

    Raises ProxyError, and changes nothing, if the headers are malformed or contradict each other.
    """
    if environ.get("REMOTE_ADDR", "") not in trusted:
        environ[UNTRUSTED_PROXY] = _looks_like_proxy(environ)
        return
    address, schemes = _client(environ, trusted)
    if address:
        environ[PROXY] = plain(environ.get("REMOTE_ADDR", "")) or UNIX
        environ["REMOTE_ADDR"] = address
        environ.pop("REMOTE_PORT", None)
    if schemes:
        # The request was encrypted only if it was encrypted on every hop.
        environ["wsgi.url_scheme"] = "https" if schemes <= {"https", "wss"} else "http"


def _looks_like_proxy(environ: Mapping[str, Any]) -> bool:
    """Whether the peer names another client, and is on this machine or in a private network: most clients that come
    from far and do so only try."""
    if "HTTP_X_FORWARDED_FOR" not in environ and "HTTP_FORWARDED" not in environ:
        return False
    try:
        return not ipaddress.ip_address(canonical(environ["REMOTE_ADDR"].partition("%")[0])).is_global
    except (KeyError, ValueError):
        # A UNIX socket.
        return True


class _Hop(NamedTuple):
    """What one proxy tells of its own peer: the address, and the schemes that were used."""

    address: str
    schemes: frozenset[str] = frozenset()


def _client(environ: Mapping[str, Any], trusted: Networks) -> tuple[str, frozenset[str]]:
    """The client's address, or an empty string, and the schemes that were used; either may be empty. Raises
    ProxyError."""
    found = []
    for name, parse in (("X-Forwarded-For", _parse_x_forwarded_for), ("Forwarded", _parse_forwarded)):
        value = environ.get("HTTP_" + name.upper().replace("-", "_"))
        if value is None:
            continue
        if len(value) > FIELD_MAX_BYTES:
            raise ProxyError(f"the {name} header is longer than {FIELD_MAX_BYTES} bytes")
        try:
            found.append(_rightmost(parse(value), trusted))
        except ValueError:
            raise ProxyError(f"the {name} header is malformed, or hides the address") from None
    # A proxy sets one of the two, and may pass on the other as the client sent it. Nothing here tells which is which.
    if len({hop.address for hop in found}) > 1:
        raise ProxyError(
            "the X-Forwarded-For and Forwarded headers contradict each other; have the proxy remove the one that it"
            " does not set"
        )
    proto = environ.get("HTTP_X_FORWARDED_PROTO", "")
    schemes = frozenset(word.strip(" \t").lower() for word in proto.split(",")) if proto else frozenset()
    return (found[0].address if found else ""), schemes.union(*(hop.schemes for hop in found))


def _rightmost(hops: Iterable[_Hop], trusted: Networks) -> _Hop:
    """The first hop, from the right, that is not a trusted proxy; the leftmost if all are. Each proxy adds its peer at
    the right end, so what is left of the client's address was written by the client. Raises ValueError."""
    schemes: frozenset[str] = frozenset()
    address = ""
    for hop in hops:
        address = _parse_node(hop.address)
        schemes |= hop.schemes
        if address not in trusted:
            break
    return _Hop(address, schemes)


def _parse_x_forwarded_for(value: str) -> Iterable[_Hop]:
    """The hops, from the right. Not parsed further: a client may write anything at the left."""
    return [_Hop(word.strip(" \t")) for word in reversed(value.split(","))]


def _parse_forwarded(value: str) -> Iterable[_Hop]:
    """The hops, from the right (RFC 7239, section 4). Raises ValueError."""
    hops: list[_Hop] = []
    pairs: dict[str, str] = {}
    position, separator = 0, ","
    while separator:
        pair = _PAIR.match(value, position)
        if pair is None:
            raise ValueError(value)
        name, text, separator = pair[1].lower(), pair[2], pair[3]
        if name in pairs:
            raise ValueError(value)
        pairs[name] = re.sub(r"\\(.)", r"\1", text[1:-1]) if text[0] == '"' else text
        if separator != ";":
            proto = pairs.get("proto", "").lower()
            hops.append(_Hop(pairs.get("for", ""), frozenset({proto} if proto else ())))
            pairs = {}
        position = pair.end()
    return reversed(hops)


def _parse_node(text: str) -> str:
    """The address in a node, without its port. Raises ValueError."""
    found = _NODE.fullmatch(text)
    if not found:
        raise ValueError(text)
    return canonical(found[found.lastindex or 0])
