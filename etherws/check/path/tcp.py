"""TCP to each address of a name, all at once: which one answers, how fast, and why another does not.

The client needs one that answers, and shows the first good one; here a dead address among good ones is to be seen. Read
next: names.py, where the addresses are from; check/network.py, the caller.
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import gevent
from gevent import socket
from gevent.socket import socket as GeventSocket

from etherws.addresses import authority
from etherws.check.findings import Finding, Verdict
from etherws.check.path.names import milliseconds
from etherws.check.path.said import failed
from etherws.client.network_errors import described

#: Bytes of a TCP segment that every path carries: what IPv4 hosts must take, less headers (RFC 9293, section 3.7.1).
SMALL_SEGMENT = 536

#: What an error of one family of addresses says about the other.
_BROKEN_V6 = (
    "IPv6 does not work on this path, IPv4 does: mend the route or the firewall for IPv6, or the server's AAAA record;"
    " meanwhile --ipv4 avoids it"
)
_BROKEN_V4 = "IPv4 does not work on this path, IPv6 does: mend the route or the firewall; meanwhile --ipv6 avoids it"
_DEAD = "the client loses time at each attempt: mend that machine, or take its address out of the name"


@dataclass(frozen=True)
class Tried:
    """One address: the `error` of its attempt, None if it has answered, after so many `seconds`."""

    address: Any
    error: OSError | None
    seconds: float

    @property
    def is_v6(self) -> bool:
        """Whether it is an IPv6 address."""
        return bool(self.address[0] == socket.AF_INET6)

    @property
    def shown(self) -> str:
        """The address and the port."""
        return shown(self.address)


def shown(address: Any) -> str:
    """Address and port of an entry in getaddrinfo()'s form."""
    return authority(str(address[4][0]), int(address[4][1]))


def open_to(address: Any, segment: int | None = None) -> GeventSocket:
    """A TCP connection to the address, which is in getaddrinfo()'s form. `segment` is the most bytes of a segment, both
    ways (tcp(7), TCP_MAXSEG). Raises OSError."""
    sock = socket.socket(*address[:3])
    try:
        if segment:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
        sock.connect(address[4])
    except BaseException:
        sock.close()
        raise
    return sock


def reachable(addresses: Sequence[Any], timeout: float, what: str) -> Generator[Finding, None, list[Any]]:
    """Connect to all `addresses` of `what`, such as "the server", each within `timeout` seconds. Return those that have
    answered."""
    greenlets = [gevent.spawn(_try, address, timeout) for address in addresses]
    try:
        found: list[Tried] = [greenlet.get() for greenlet in greenlets]
    finally:
        gevent.killall(greenlets)
    for each in found:
        yield _finding(each, found, what)
    return [each.address for each in found if each.error is None]


def _try(address: Any, timeout: float) -> Tried:
    begun = monotonic()
    error: OSError | None = None
    try:
        with gevent.Timeout(timeout, TimeoutError(errno.ETIMEDOUT, f"no answer within {timeout:g} s")):
            open_to(address).close()
    except OSError as exc:
        error = exc
    return Tried(address, error, monotonic() - begun)


def _finding(tried: Tried, all_: Sequence[Tried], what: str) -> Finding:
    data: dict[str, Any] = {"address": tried.shown, "seconds": round(tried.seconds, 4), "error": None}
    if tried.error is None:
        return Finding("tcp", f"{what} at {tried.shown} answers in {milliseconds(tried.seconds)}", data=data)
    data["error"] = errno.errorcode.get(tried.error.errno or 0, str(tried.error.errno))
    text = described(tried.error)
    good = [each for each in all_ if each.error is None]
    before = f"{what} at {tried.shown}: "
    if not good:
        return failed("tcp", text, before=before, data=data)
    same = [each for each in all_ if each.is_v6 == tried.is_v6]
    hint = _DEAD
    if all(each.error for each in same):
        hint = _BROKEN_V6 if tried.is_v6 else _BROKEN_V4
    return failed("tcp", text, before=before, hint=hint, verdict=Verdict.WARNING, data=data)
