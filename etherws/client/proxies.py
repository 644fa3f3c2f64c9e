"""What is said to a proxy: HTTP CONNECT, with Basic or Digest, and SOCKS5.

Every answer is read to its last byte and no further: what a proxy sends behind it comes from the server, and stays in
the socket. The deadline is the caller's. Read next: http_auth.py, dial.py.
Sources: RFC 9110, section 9.3.6; RFC 1928; RFC 1929.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Callable
from http import HTTPStatus

from etherws import __version__
from etherws.client import http_auth
from etherws.client.http_auth import Challenge
from etherws.client.proxy_choice import Proxy, authority
from etherws.errors import ConnectError, printable
from etherws.tunnel.stream import Stream

#: Bytes of a proxy's answer, headers included.
ANSWER_MAX = 16 * 1024

#: Requests for one tunnel: to learn what the proxy wants, to answer, and to answer again if its nonce was too old.
ROUNDS = 3

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r)")

_HINTS = {
    403: "it does not let this client reach {to}",
    404: "is that a proxy?",
    405: "is that a proxy?",
    502: "it cannot reach {to}",
    503: "it cannot reach {to}",
    504: "it gets no answer from {to}",
}

#: RFC 1928, section 6.
_REPLIES = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "it knows no CONNECT",
    8: "it knows no such kind of address",
}


def tunnel(proxy: Proxy, host: str, port: int, connect: Callable[[], Stream]) -> Stream:
    """A socket that the HTTP proxy has connected to `host`; `connect` makes one to the proxy, fresh for each request,
    since many proxies hang up after a 407. Raises ConnectError, or OSError as the socket does.
    """
    to, said = authority(host, port), ""
    for _ in range(ROUNDS):
        sock = connect()
        try:
            status, head = _ask(sock, to, said)
        except BaseException:
            sock.close()
            raise
        if 200 <= status < 300:
            return sock
        sock.close()
        if status != 407:
            phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "unknown status"
            hint = _HINTS.get(status, "")
            raise ConnectError(f"answered {status} {phrase}" + (hint and "; " + hint.format(to=to)))
        said = _authorize(proxy, to, _challenges(head), said)
    raise ConnectError("asks for the user and password again and again")


def _ask(sock: Stream, to: str, authorization: str) -> tuple[int, bytes]:
    """Send the request; return the status and the whole head of the answer."""
    lines = [f"CONNECT {to} HTTP/1.1", f"Host: {to}", f"User-Agent: etherws/{__version__}"]
    if authorization:
        lines.append(f"Proxy-Authorization: {authorization}")
    sock.sendall("\r\n".join([*lines, "", ""]).encode(errors="surrogateescape"))
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        if len(head) >= ANSWER_MAX:
            raise ConnectError(f"answered with headers of over {ANSWER_MAX} bytes; is that a proxy?")
        byte = sock.recv(1)
        if not byte:
            raise ConnectError("ended the connection without an answer; is that an HTTP proxy?")
        head += byte
    status = _STATUS.match(head)
    if not status:
        raise ConnectError("gave an answer that is not HTTP; is that an HTTP proxy?")
    return int(status[1]), bytes(head)


def _challenges(head: bytes) -> list[Challenge]:
    lines = head.decode(errors="surrogateescape").split("\r\n")
    fields = [line.partition(":") for line in lines[1:]]
    return http_auth.parse(value for name, _, value in fields if name.lower() == "proxy-authenticate")


def _authorize(proxy: Proxy, to: str, offered: list[Challenge], before: str) -> str:
    """What to say to a 407; `before` is what was said already. Raises ConnectError that names what is offered."""
    schemes = ", ".join(dict.fromkeys(printable(scheme) for scheme, _ in offered)) or "no way"
    said = http_auth.answer(
        offered, proxy.user or "", proxy.password, method="CONNECT", uri=to, cnonce=secrets.token_hex(16)
    )
    if said is None:
        ntlm = {scheme.lower() for scheme, _ in offered} & {"ntlm", "negotiate"}
        hint = "run px or cntlm on this machine, and name that as the proxy" if ntlm else "etherws has Basic and Digest"
        raise ConnectError(f"answered 407: it offers {schemes} to authenticate; {hint}")
    if proxy.user is None:
        raise ConnectError(
            f"answered 407: it offers {schemes} to authenticate; write the user and password into its URL,"
            f" {proxy.scheme}://USER:PASSWORD@{authority(proxy.host, proxy.port)}"
        )
    stale = any(parameters.get("stale", "").lower() == "true" for _, parameters in offered)
    if before and not stale:
        raise ConnectError(f"does not take this user and password; it offers {schemes}")
    return said


def socks5(proxy: Proxy, host: str, port: int, sock: Stream) -> None:
    """Let the SOCKS5 proxy at the other end of `sock` connect it to `host`, whose name it looks up itself.

    Raises ConnectError, or OSError as the socket does.
    """
    methods = b"\0" if proxy.user is None else b"\0\2"
    sock.sendall(bytes([5, len(methods)]) + methods)
    version, method = _exactly(sock, 2)
    if version != 5:
        raise ConnectError("gave an answer that is not SOCKS5; is that a SOCKS5 proxy?")
    if method not in methods:
        if proxy.user is None:
            raise ConnectError(
                "asks for a user and password; write them into its URL,"
                f" socks5://USER:PASSWORD@{authority(proxy.host, proxy.port)}"
            )
        raise ConnectError("wants to authenticate by none of what etherws has: nothing, or user and password")
    if method == 2:
        user, password = (proxy.user or "").encode(), proxy.password.encode()
        sock.sendall(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if _exactly(sock, 2)[1] != 0:
            raise ConnectError("does not take this user and password")
    sock.sendall(b"\5\1\0" + _address(host) + port.to_bytes(2, "big"))
    reply = _exactly(sock, 2)[1]
    if reply != 0:
        raise ConnectError(f"cannot reach {authority(host, port)}: {_REPLIES.get(reply, f'reply {reply}')}")
    # What it is bound to: an address or a name, and a port.
    kind = _exactly(sock, 2)[1]
    size = {1: 4, 4: 16}.get(kind) or _exactly(sock, 1)[0]
    _exactly(sock, size + 2)


def _address(host: str) -> bytes:
    """RFC 1928, section 5."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        if len(name) > 255:
            raise ConnectError("SOCKS5 has no room for a name of over 255 bytes") from None
        return bytes([3, len(name)]) + name
    return bytes([1 if address.version == 4 else 4]) + address.packed


def _exactly(sock: Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectError("ended the connection within its answer; is that a SOCKS5 proxy?")
        data += more
    return data
