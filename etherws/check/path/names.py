"""The first step on a path: a name becomes addresses, by DNS or by /etc/hosts, and how long that takes.

The look-up itself is the client's (client/dial.py). Read next: tcp.py, which tries each address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Generator
from time import monotonic
from typing import Any

import gevent

from etherws.check.findings import Finding, Verdict
from etherws.check.path.said import failed
from etherws.client.dial import interleave, look_up
from etherws.errors import ConnectError, some_of
from etherws.small_files import read_file

#: Addresses of one name that are tried. A DNS answer may have thousands.
ADDRESSES_MAX = 16

#: Addresses that a line names.
_SHOWN_MAX = 6

#: Seconds: a look-up that takes longer holds up each attempt to connect.
SLOW = 1.0

#: Bytes of /etc/hosts that are read. Lists of what to block have some megabytes.
_HOSTS_MAX = 8 << 20

_NO_DNS = "does the name server answer that /etc/resolv.conf names?"

_ONLY = {4: "IPv4", 6: "IPv6"}


def names(host: str, port: int, family: int, timeout: float, what: str) -> Generator[Finding, None, list[Any]]:
    """Look up `host`, which is `what`, such as "the server". Return its addresses, in getaddrinfo()'s form: the first
    ADDRESSES_MAX, none if the look-up has failed. `family` is 4 or 6 for that version of IP only; `timeout` in
    seconds."""
    begun = monotonic()
    only = f" (only {_ONLY[family]} was asked for)" if family else ""
    hosts = in_hosts_file(host)
    source = "/etc/hosts" if hosts else "the name server"
    data: dict[str, Any] = {"host": host, "hosts_file": hosts}
    try:
        with gevent.Timeout(timeout, ConnectError(f"no answer within {timeout:g} s; {_NO_DNS}")):
            found = interleave(look_up(host, port, family))
    except ConnectError as exc:
        hint = ""
        if hosts:
            hint = "/etc/hosts has this name: is the line right?"
        yield failed("names", exc, before=f"{what} {host} has no address{only}: ", hint=hint, data=data)
        return []
    took = monotonic() - begun
    addresses = [str(each[4][0]) for each in found]
    data |= {"addresses": addresses, "seconds": round(took, 4)}
    if is_address(host):
        yield Finding("names", f"{what} is named by its address, {host}", data=data)
        return found
    text = f"{what} {host} is {some_of(addresses, _SHOWN_MAX)}, by {source}, in {milliseconds(took)}{only}"
    if took > SLOW:
        hint = "the name server is slow or the first one does not answer: see /etc/resolv.conf"
        yield Finding("names", text, Verdict.WARNING, hint, data)
    elif hosts:
        local = host == "localhost"
        hint = "" if local else "/etc/hosts comes before DNS: remove the line if the server has moved"
        yield Finding("names", text, Verdict.OK if local else Verdict.NOTE, hint, data)
    else:
        yield Finding("names", text, data=data)
    if len(found) > ADDRESSES_MAX:
        text = f"only the first {ADDRESSES_MAX} of {len(found)} addresses are looked at"
        yield Finding("names", text, Verdict.NOTE)
    return found[:ADDRESSES_MAX]


def is_address(host: str) -> bool:
    """Whether this is an IP address, perhaps with a zone, and no name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def in_hosts_file(host: str, path: str = "/etc/hosts") -> bool:
    """Whether the file of names (hosts(5)) has this name."""
    try:
        text = read_file(path, _HOSTS_MAX).decode(errors="replace")
    except OSError:
        return False
    name = host.rstrip(".").lower()
    return any(name in line.partition("#")[0].lower().split()[1:] for line in text.splitlines())


def milliseconds(seconds: float) -> str:
    """A time as it is shown: three digits at most that mean something."""
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
