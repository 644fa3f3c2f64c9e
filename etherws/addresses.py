"""IP addresses of peers: how they are written, which networks they are in, and the key that limits are counted by.

Pure: resolves no name and opens no socket. Users: server/front_door.py, server/forwarded.py, server/authenticate.py.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from etherws.errors import SettingsError

#: How --trusted-proxy names all peers on the UNIX socket. They have no IP address.
UNIX = "unix"


class Networks:
    """A set of trusted proxies: networks such as 10.0.0.0/8, single addresses, or the word "unix"."""

    def __init__(self, words: Iterable[str]) -> None:
        """Raises SettingsError if a word is not a network, an address or "unix"."""
        self._unix = False
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for word in words:
            if word == UNIX:
                self._unix = True
                continue
            try:
                self._networks.append(ipaddress.ip_network(word))
            except ValueError as exc:
                raise SettingsError(f"--trusted-proxy {word!r}: {exc}; write 10.0.0.0/8, an address or unix") from None

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def __contains__(self, address: str) -> bool:
        """Whether `address` is in the set. The empty string stands for a peer on a UNIX socket."""
        if not address:
            return self._unix
        if not self._networks:
            return False
        try:
            ip = ipaddress.ip_address(plain(address))
        except ValueError:
            return False
        return any(ip in network for network in self._networks)


def is_address(text: str) -> bool:
    """Whether this is an IP address, and not a name; one with a zone is."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def plain(address: str) -> str:
    """An address as logs show it. A dual-stack socket shows an IPv4 peer as an IPv4-mapped IPv6 address (RFC 4291,
    section 2.5.5.2); this removes the mapping."""
    return address.removeprefix("::ffff:") if "." in address else address


def peer(address: object) -> str:
    """The IP address in what socket.accept() returned. The empty string for a UNIX socket."""
    return plain(str(address[0])) if isinstance(address, tuple) else ""


def canonical(address: str | bytes) -> str:
    """An address in its usual text form, from any text form or from its 4 or 16 bytes. An IPv4-mapped IPv6 address
    becomes an IPv4 one. Raises ValueError."""
    ip = ipaddress.ip_address(address)
    return str(getattr(ip, "ipv4_mapped", None) or ip)


def source_key(address: str) -> str:
    """The key that limits count `address` by: an IPv4 address itself, or the /64 of an IPv6 address, because one host
    can use every address of its /64. Text that is not an address is returned as it is."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return address if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))


def bracketed(host: str) -> str:
    """A host as a URL shows it: an IPv6 address in brackets (RFC 3986, section 3.2.2), anything else as it is."""
    return f"[{host}]" if ":" in host else host


def authority(host: str, port: int) -> str:
    """HOST:PORT as a URL shows it, with brackets around an IPv6 address."""
    return f"{bracketed(host)}:{port}"
