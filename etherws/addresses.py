"""IP addresses of peers: how they are written, which networks they are in, and the key that limits count them by."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from etherws.errors import SettingsError

#: What --trusted-proxy calls all peers on the UNIX socket, which have no addresses.
UNIX = "unix"


class Networks:
    """The proxies whose word counts: networks such as 10.0.0.0/8, addresses, or the word "unix"."""

    def __init__(self, words: Iterable[str]) -> None:
        """Raises SettingsError."""
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
        """Whether this is one of them; the empty string stands for a peer on a UNIX socket."""
        if not address:
            return self._unix
        if not self._networks:
            return False
        try:
            ip = ipaddress.ip_address(plain(address))
        except ValueError:
            return False
        return any(ip in network for network in self._networks)


def plain(address: str) -> str:
    """An address as it is written in logs: an IPv4 one is not mapped into IPv6 (RFC 4291, section 2.5.5.2), which is
    how a dual-stack socket shows it."""
    return address.removeprefix("::ffff:") if "." in address else address


def peer(address: object) -> str:
    """The IP address in what accept() returned; the empty string for a UNIX socket."""
    return plain(str(address[0])) if isinstance(address, tuple) else ""


def source_key(address: str) -> str:
    """What is counted as one source: an IPv4 address, or the /64 of an IPv6 one, since whoever has one has them all."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return address if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))
