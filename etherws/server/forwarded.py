"""Who a client is, by the word of the reverse proxies that are trusted, and of nobody else.

Pure: parses X-Forwarded-For, Forwarded (RFC 7239) and versions 1 and 2 of HAProxy's PROXY protocol (proxy-protocol.txt,
sections 2.1 and 2.2). Whose word counts and what becomes of it is wsgi.py's (headers) and introduced.py's (PROXY).
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, NamedTuple

from etherws.addresses import Networks
from etherws.errors import ProxyError

#: Bytes of a header that are looked at. A proxy adds 50 at most; whoever sends it thousands hides something.
FIELD_MAX = 4096

#: Section 2.1: the longest line of version 1, with its end.
V1_MAX = 107

#: Section 2.2: addresses take 216 bytes at most. The rest is notes, which are skipped: names, certificates.
V2_MAX = 2048

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

#: RFC 7239, section 4: one pair, and what ends it.
_PAIR = re.compile(
    r"""[ \t]* ([!#$%&'*+\-.^_`|~0-9A-Za-z]+)
        = ([!#$%&'*+\-.^_`|~0-9A-Za-z]+ | "(?:[^"\\]|\\.)*")
        [ \t]* (;|,|$)""",
    re.VERBOSE,
)


def follow(environ: MutableMapping[str, Any], trusted: Networks) -> None:
    """Make REMOTE_ADDR the client's address and wsgi.url_scheme the client's, if a trusted proxy tells them.

    Raises ProxyError, with nothing changed, if what it tells makes no sense.
    """
    if environ.get("REMOTE_ADDR", "") not in trusted:
        return
    address, schemes = _client(environ, trusted)
    if address:
        environ["REMOTE_ADDR"] = address
        environ.pop("REMOTE_PORT", None)
    if schemes:
        # Of several the worst: whatever one proxy received in the clear was in the clear.
        environ["wsgi.url_scheme"] = "https" if schemes <= {"https", "wss"} else "http"


def source(read: Callable[[int], bytes]) -> tuple[str, int] | None:
    """The client's address and port by the PROXY header at the start of a connection; None if the proxy speaks for
    itself, as for its health checks, or does not know.

    `read(size)` returns `size` bytes, or fewer at the end. Nothing behind the header is read. Raises ProxyError.
    """

    def take(size: int) -> bytes:
        data = read(size)
        if len(data) < size:
            raise ProxyError("the connection ended before the PROXY header did")
        return data

    begin = take(len(_SIGNATURE))
    if begin == _SIGNATURE:
        return _version_2(take)
    if begin[:6] == b"PROXY ":
        return _version_1(begin, take)
    raise ProxyError("there is no PROXY header; have the proxy send one (HAProxy: send-proxy-v2)")


def _version_1(line: bytes, take: Callable[[int], bytes]) -> tuple[str, int] | None:
    # Nothing says how long it is: a byte at a time, or what follows would be lost.
    while not line.endswith(b"\r\n"):
        if len(line) == V1_MAX:
            raise ProxyError(f"the PROXY header, version 1, is longer than {V1_MAX} bytes")
        line += take(1)
    words = line[:-2].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return None
    try:
        _, family, client, server, client_port, server_port = words
        version = {"TCP4": 4, "TCP6": 6}[family]
        # The server's part is nothing to us, but must be right as well.
        for address, port in ((server, server_port), (client, client_port)):
            # The module would take scopes too, which may have anything in them.
            ip = ipaddress.ip_address(address)
            if ip.version != version or "%" in address:
                raise ValueError(address)
            number = _port(port)
        return _written(ip.packed), number
    except (ValueError, KeyError):
        raise ProxyError("the PROXY header, version 1, is malformed") from None


def _version_2(take: Callable[[int], bytes]) -> tuple[str, int] | None:
    command, family, size = struct.unpack(">BBH", take(4))
    if command not in (0x20, 0x21):
        raise ProxyError(f"the PROXY header says command 0x{command:02x}, which version 2 does not have")
    if size > V2_MAX:
        raise ProxyError(f"the PROXY header announces {size} bytes; {V2_MAX} are the most that is taken")
    body = take(size)
    if command == 0x20:
        return None
    layout = {0x11: "4s4sHH", 0x21: "16s16sHH"}.get(family)
    if layout is None:
        # Unspecified, or a UNIX socket. No other kind carries a stream.
        if family in (0x00, 0x31):
            return None
        raise ProxyError(f"the PROXY header says family 0x{family:02x}, which is not TCP")
    try:
        client, _, port, _ = struct.unpack_from(">" + layout, body)
    except struct.error:
        raise ProxyError("the PROXY header, version 2, is too short for its addresses") from None
    return _written(client), port


class _Hop(NamedTuple):
    """What one proxy said of who spoke to it."""

    address: str
    schemes: frozenset[str] = frozenset()


def _client(environ: Mapping[str, Any], trusted: Networks) -> tuple[str, frozenset[str]]:
    """The client's address, or an empty string, and the schemes that it and proxies used, if they are told."""
    found = []
    for name, parse in (("X-Forwarded-For", _x_forwarded_for), ("Forwarded", _forwarded)):
        value = environ.get("HTTP_" + name.upper().replace("-", "_"))
        if value is None:
            continue
        if len(value) > FIELD_MAX:
            raise ProxyError(f"the {name} header has over {FIELD_MAX} bytes")
        try:
            found.append(_rightmost(parse(value), trusted))
        except ValueError:
            raise ProxyError(f"the {name} header is malformed, or hides the address") from None
    # A proxy sets one, and passes on whatever else the client sent: which one is true, none can tell from here.
    if len({hop.address for hop in found}) > 1:
        raise ProxyError(
            "the X-Forwarded-For and Forwarded headers contradict each other; have the proxy remove the one that it"
            " does not set"
        )
    proto = environ.get("HTTP_X_FORWARDED_PROTO", "")
    schemes = frozenset(word.strip(" \t").lower() for word in proto.split(",")) if proto else frozenset()
    return (found[0].address if found else ""), schemes.union(*(hop.schemes for hop in found))


def _rightmost(hops: Iterable[str | _Hop], trusted: Networks) -> _Hop:
    """The rightmost hop that is no trusted proxy, or else the leftmost. Each proxy adds whom it heard from to the
    right: what stands left of a stranger is the stranger's word. Raises ValueError for what is no address."""
    schemes: frozenset[str] = frozenset()
    address = ""
    for hop in hops:
        text, said = (hop, frozenset()) if isinstance(hop, str) else hop
        address = _node(text)
        schemes |= said
        if address not in trusted:
            break
    return _Hop(address, schemes)


def _x_forwarded_for(value: str) -> Iterable[str]:
    """From the right."""
    return reversed([word.strip(" \t") for word in value.split(",")])


def _forwarded(value: str) -> Iterable[_Hop]:
    """From the right (RFC 7239, section 4). Raises ValueError."""
    hops: list[_Hop] = []
    pairs: dict[str, str] = {}
    at, end = 0, ","
    while end:
        pair = _PAIR.match(value, at)
        if pair is None:
            raise ValueError(value)
        name, text, end = pair[1].lower(), pair[2], pair[3]
        if name in pairs:
            raise ValueError(value)
        pairs[name] = re.sub(r"\\(.)", r"\1", text[1:-1]) if text[0] == '"' else text
        if end != ";":
            proto = pairs.get("proto", "").lower()
            hops.append(_Hop(pairs.get("for", ""), frozenset({proto} if proto else ())))
            pairs = {}
        at = pair.end()
    return reversed(hops)


def _node(text: str) -> str:
    """The address in a node (RFC 7239, section 6), with or without a port; lone IPv6 addresses stand bare in
    X-Forwarded-For. Raises ValueError."""
    found = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?|([0-9.]+)(?::\d{1,5})?|([0-9A-Fa-f:.]+)", text, re.ASCII)
    if not found:
        raise ValueError(text)
    return _written(ipaddress.ip_address(found[found.lastindex or 0]).packed)


def _written(packed: bytes) -> str:
    ip = ipaddress.ip_address(packed)
    return str(getattr(ip, "ipv4_mapped", None) or ip)


def _port(text: str) -> int:
    if not re.fullmatch("0|[1-9][0-9]{0,4}", text) or int(text) > 65535:
        raise ValueError(text)
    return int(text)
