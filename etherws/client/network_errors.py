"""What an error of the network means, and what to try: names that are not found, addresses that do not answer.

Pure. Used by dial.py, for the server and for a proxy, and by attempt.py. What is lost after the 101 is in losses.py.
Sources: errno(3), getaddrinfo(3).
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from enum import Enum

from etherws.errors import DESCRIPTORS_HINT, some_of

#: By error number. getaddrinfo()'s are negative: EAI_* of netdb.h.
_HINTS = {
    errno.ECONNREFUSED: "is it running there, and is the port right?",
    errno.ECONNRESET: "the other side, or a firewall between, ended it; are the port and ws:// or wss:// right?",
    errno.ETIMEDOUT: "does a firewall drop it, or is that machine down?",
    errno.EHOSTUNREACH: "is that machine up, and the address right?",
    errno.ENETUNREACH: "is this machine's network up? it has no route there",
    errno.EADDRNOTAVAIL: "this machine has no address to connect from; is its network up?",
    errno.EACCES: "a firewall of this machine forbids it",
    errno.EPERM: "a firewall of this machine forbids it",
    errno.EINVAL: "a link-local address needs its interface: [fe80::1%25eth0]",
    errno.EMFILE: DESCRIPTORS_HINT,
    # EAI_NONAME, EAI_AGAIN, EAI_FAIL, EAI_NODATA, EAI_FAMILY, EAI_ADDRFAMILY
    -2: "is the name spelled right?",
    -3: "the name server gives no answer; is this machine's network up?",
    -4: "the name server cannot answer for this name; is it spelled right?",
    -5: "the name has no address of this kind; see --ipv4 and --ipv6",
    -6: "this machine has no such network; see --ipv4 and --ipv6",
    -9: "the name has no address of this kind; see --ipv4 and --ipv6",
}


#: Errors that say that this machine has no way for this kind of addresses at all, which costs no time and is no fault.
_NO_SUCH_NETWORK = (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

#: Addresses that are named in one line.
NAMED = 3


class Step(Enum):
    """What an attempt waits for: what has not answered, and what to try."""

    NAME = "from the name server", "is this machine's network up, and its name server the right one?"
    TCP = "from {where}", "does a firewall drop it, or is that machine down?"
    PROXY = "from the proxy", "is it a proxy of that kind, and can it reach the server?"
    TLS = (
        "to TLS, though TCP is connected",
        "are large packets lost on the way (path MTU), or does a firewall drop it? 'etherws check' finds out",
    )
    REQUEST = "to the request", "does what listens there run, or does a proxy between wait for etherws?"


def no_answer(seconds: float, step: Step, where: str = "", proxy: str = "") -> str:
    """What is said if nothing came within so many `seconds`. `where` are the addresses that were tried; `proxy` is the
    one that has not connected us yet, empty for none."""
    what, hint = step.value
    if proxy:
        return f"no answer from the proxy {proxy} within {seconds:g} s; {hint}"
    return f"no answer within {seconds:g} s {what.format(where=where)}; {hint}"


def missed(host: str, tried: Sequence[tuple[str, OSError | None]], used: str) -> str:
    """What is said if `used` is the address of `host` that answers, and those that were `tried` before do not, each
    with its error, None if it was silent. Empty if there is nothing to mend."""
    dead = [(address, error) for address, error in tried if error is None or error.errno not in _NO_SUCH_NETWORK]
    if not dead:
        return ""
    names = some_of([f"{address} ({error.strerror if error else 'no answer'})" for address, error in dead], NAMED)
    if all(":" in address for address, _ in dead) and ":" not in used:
        return (
            f"IPv6 does not work on the path to {host}, {names}; IPv4 does: mend the route or the firewall for IPv6, or"
            " the AAAA record; meanwhile --ipv4 avoids it"
        )
    return (
        f"{host} has an address that does not work, {names}; {used} does. Each attempt loses time: mend that machine,"
        " or take its address out of the name"
    )


def described(error: OSError | UnicodeError, where: str = "") -> str:
    """The error in words, with `where` behind it, and what to try."""
    text = (getattr(error, "strerror", None) or str(error)) + where
    hint = _HINTS.get(getattr(error, "errno", None) or 0)
    return f"{text}; {hint}" if hint else text
