"""What an error of the network means, and what to try: names that are not found, addresses that do not answer.

Pure. Used by dial.py, for the server and for a proxy, and by attempt.py. Sources: errno(3), getaddrinfo(3).
"""

from __future__ import annotations

import errno

from etherws.errors import DESCRIPTORS_HINT

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


def described(error: OSError | UnicodeError, where: str = "") -> str:
    """The error in words, with `where` behind it, and what to try."""
    text = (getattr(error, "strerror", None) or str(error)) + where
    hint = _HINTS.get(getattr(error, "errno", None) or 0)
    return f"{text}; {hint}" if hint else text
