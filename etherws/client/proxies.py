"""Ask a proxy for a connection to the server: HTTP CONNECT, with Basic or Digest, and SOCKS5.

Each answer is read to its last byte and not further: what follows it comes from the server, and stays in the socket.
The deadline is the caller's. Read next: http_answer.py, http_auth.py; dial.py, the caller.
Sources: RFC 9110, section 9.3.6; RFC 1928; RFC 1929.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable

from etherws import __version__
from etherws.addresses import authority
from etherws.client import answer_text, http_auth
from etherws.client.error_body import error_body
from etherws.client.http_answer import HttpAnswer, read_answer
from etherws.client.http_auth import Challenge
from etherws.client.proxy_choice import Proxy
from etherws.errors import ConnectError, printable
from etherws.tunnel.stream import Stream, read_exactly

#: Requests for one connection: one without credentials, one with them, one more if the proxy's nonce was too old.
REQUESTS_MAX = 3

_HINTS = {
    400: "is that an HTTP proxy?",
    403: "it does not let this client reach {target}; does it allow CONNECT to port {port}? most allow 443 only",
    404: "is that a proxy?",
    405: "is that a proxy? does it allow CONNECT?",
    429: "it has had too many requests; wait some minutes",
    502: "it cannot reach {target}",
    501: "is that a proxy? does it allow CONNECT?",
    503: "it cannot reach {target}",
    504: "it gets no answer from {target}",
}

#: RFC 1928, section 6.
_SOCKS_REPLIES = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "it does not support CONNECT",
    8: "it does not support this type of address",
}


def http_connect(proxy: Proxy, host: str, port: int, connect: Callable[[], Stream]) -> Stream:
    """A stream that the HTTP proxy has connected to `host` and `port`.

    `connect` makes a new connection to the proxy, one for each request: many proxies close it after a 407. Raises
    ConnectError, or OSError from the stream.
    """
    target, authorization = authority(host, port), ""
    for _ in range(REQUESTS_MAX):
        stream = connect()
        try:
            answer = _request(stream, target, authorization)
            if answer.status is None:
                raise ConnectError(_not_http(answer))
            if not 200 <= answer.status < 300 and answer.status != 407:
                secrets = (*answer_text.secrets_of(authorization), proxy.password)
                raise _refusal(answer, answer_text.words(answer, error_body(stream, answer), secrets), target, port)
        except BaseException:
            stream.close()
            raise
        if answer.status != 407:
            return stream
        stream.close()
        challenges = http_auth.parse(answer.values("Proxy-Authenticate"))
        authorization = _authorize(proxy, target, challenges, authorization)
    raise ConnectError("asks for the user and password again and again")


def _request(stream: Stream, target: str, authorization: str) -> HttpAnswer:
    """Send a CONNECT request and read the answer."""
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", f"User-Agent: etherws/{__version__}"]
    if authorization:
        lines.append(f"Proxy-Authorization: {authorization}")
    stream.sendall("\r\n".join([*lines, "", ""]).encode(errors="surrogateescape"))
    return read_answer(stream.recv, hint="is that an HTTP proxy?", exact=True)


def _not_http(answer: HttpAnswer) -> str:
    """The message for an answer that is not HTTP/1."""
    found = answer_text.spoken(answer.head)
    if found == "TLS":
        return "speaks TLS there; write https:// in place of http://"
    return f"gave an answer that is not HTTP{found and f' but {found}'}; is that an HTTP proxy?"


def _refusal(answer: HttpAnswer, words: str, target: str, port: int) -> ConnectError:
    """The error for an answer that is neither a success nor a 407, with the words in its body."""
    hint = _HINTS.get(answer.status or 0, "").format(target=target, port=port)
    kind = f"answered {answer.status_text}" + (hint and f"; {hint}")
    return ConnectError(kind + (words and f"; it says: {words}"), kind=kind)


def _authorize(proxy: Proxy, target: str, challenges: list[Challenge], before: str) -> str:
    """The Proxy-Authorization header that answers a 407. `before` is the one that was already sent, or empty.

    Raises ConnectError, which names what the proxy offers.
    """
    # The names are up to the proxy, so they make no new reason for a line of the log.
    offered = printable(", ".join(dict.fromkeys(scheme for scheme, _ in challenges))) or "no way"
    authorization = http_auth.answer(
        challenges, proxy.user or "", proxy.password, method="CONNECT", uri=target, cnonce=secrets.token_hex(16)
    )
    if authorization is None:
        ntlm = {scheme.lower() for scheme, _ in challenges} & {"ntlm", "negotiate"}
        hint = "run px or cntlm on this machine, and name that as the proxy" if ntlm else "etherws has Basic and Digest"
        raise ConnectError(f"answered 407: it offers {offered} to authenticate; {hint}", kind=f"answered 407; {hint}")
    if proxy.user is None:
        url = f"{proxy.scheme}://USER:PASSWORD@{authority(proxy.host, proxy.port)}"
        hint = f"write the user and password into its URL, {url}"
        raise ConnectError(f"answered 407: it offers {offered} to authenticate; {hint}", kind=f"answered 407; {hint}")
    stale = any(parameters.get("stale", "").lower() == "true" for _, parameters in challenges)
    if before and not stale:
        kind = "does not accept this user and password"
        raise ConnectError(f"{kind}; it offers {offered}", kind=kind)
    return authorization


def socks5_connect(proxy: Proxy, host: str, port: int, stream: Stream) -> None:
    """Have the SOCKS5 proxy at the other end of `stream` connect it to `host` and `port`. The proxy looks the name up.

    Raises ConnectError, or OSError from the stream.
    """
    methods = b"\0" if proxy.user is None else b"\0\2"
    stream.sendall(bytes([5, len(methods)]) + methods)
    version, method = _receive(stream, 2)
    if version != 5:
        raise ConnectError("gave an answer that is not SOCKS5; is that a SOCKS5 proxy?")
    if method not in methods:
        if proxy.user is None:
            raise ConnectError(
                "asks for a user and password; write them into its URL,"
                f" socks5://USER:PASSWORD@{authority(proxy.host, proxy.port)}"
            )
        raise ConnectError("offers no way to authenticate that etherws has: none, or user and password")
    if method == 2:
        user, password = (proxy.user or "").encode(), proxy.password.encode()
        stream.sendall(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if _receive(stream, 2)[1] != 0:
            raise ConnectError("does not accept this user and password")
    stream.sendall(b"\5\1\0" + _socks_address(host) + port.to_bytes(2, "big"))
    reply = _receive(stream, 2)[1]
    if reply != 0:
        raise ConnectError(f"cannot reach {authority(host, port)}: {_SOCKS_REPLIES.get(reply, f'reply {reply}')}")
    # The rest is the address that the proxy uses, of variable length, and its port. Nobody needs them.
    kind = _receive(stream, 2)[1]
    size = {1: 4, 4: 16}.get(kind) or _receive(stream, 1)[0]
    _receive(stream, size + 2)


def _socks_address(host: str) -> bytes:
    """The type and the address (RFC 1928, section 5)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        if len(name) > 255:
            raise ConnectError("the server's name is longer than 255 bytes, which SOCKS5 does not allow") from None
        return bytes([3, len(name)]) + name
    return bytes([1 if address.version == 4 else 4]) + address.packed


def _receive(stream: Stream, size: int) -> bytes:
    """Exactly `size` bytes. Raises ConnectError if the proxy closes the connection before."""
    data = read_exactly(stream, size)
    if len(data) < size:
        raise ConnectError("ended the connection within its answer; is that a SOCKS5 proxy?")
    return data
