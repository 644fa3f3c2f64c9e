"""Headers of the PROXY protocol."""

from __future__ import annotations

import ipaddress
import socket
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def version_2(command: int, family: int, body: bytes, size: int | None = None) -> bytes:
    """A PROXY header, version 2."""
    return SIGNATURE + struct.pack(">BBH", command, family, len(body) if size is None else size) + body


IPV4 = bytes([192, 0, 2, 1, 198, 51, 100, 1]) + struct.pack(">HH", 4711, 443)


IPV6 = ipaddress.ip_address("2001:db8::1").packed * 2 + struct.pack(">HH", 4711, 443)


def header(version: int, address: str = "192.0.2.1") -> bytes:
    """A PROXY header that names a client."""
    if version == 1:
        return f"PROXY TCP4 {address} 198.51.100.1 4711 443\r\n".encode()
    return version_2(0x21, 0x11, socket.inet_aton(address) + IPV4[4:])
