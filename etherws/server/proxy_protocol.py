"""The header of HAProxy's PROXY protocol, versions 1 and 2: it names the client at the start of a proxy's connection.

Pure: parses bytes that it gets from a function. Which peers must send the header, and the deadline for it, are in
front_door.py. Source: proxy-protocol.txt of HAProxy, sections 2.1 and 2.2.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Callable

from etherws.addresses import canonical
from etherws.errors import ProxyError

#: Bytes of the longest version 1 header, with its CR LF (section 2.1).
V1_MAX_BYTES = 107

#: Bytes of a version 2 header that are accepted after its first 16. The addresses take 216 at most (section 2.2). The
#: rest are extra fields (names, certificates), which are skipped.
V2_MAX_BYTES = 2048

#: The first bytes of version 2, and of version 1 (section 2). The shorter one is read together with what follows it.
_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V1_SIGNATURE = b"PROXY "

#: Version 2 and the command, in one byte: LOCAL is the proxy's own connection, PROXY is a client's (section 2.2).
_LOCAL, _PROXY = 0x20, 0x21

#: Address family and transport, in one byte (section 2.2): how the addresses and ports are packed.
_TCP_LAYOUTS = {0x11: ">4s4sHH", 0x21: ">16s16sHH"}

#: Families without a client's IP address: unspecified, and a UNIX stream socket.
_NO_ADDRESS = (0x00, 0x31)

_IP_VERSIONS = {"TCP4": 4, "TCP6": 6}


def read_header(read: Callable[[int], bytes]) -> tuple[str, int] | None:
    """Read a PROXY header; return the client's address and port. None if the proxy does not know them, or speaks for
    itself, as in a health check.

    `read(size)` returns `size` bytes, or fewer at the end of the connection. No byte after the header is read. Raises
    ProxyError if there is no header, or not a valid one.
    """

    def take(size: int) -> bytes:
        data = read(size)
        if len(data) < size:
            raise ProxyError("the connection ended before the PROXY header did")
        return data

    start = take(len(_V2_SIGNATURE))
    if start == _V2_SIGNATURE:
        return _read_version_2(take)
    if start.startswith(_V1_SIGNATURE):
        return _read_version_1(start, take)
    raise ProxyError("there is no PROXY header; have the proxy send one (HAProxy: send-proxy-v2)")


def _read_version_1(line: bytes, take: Callable[[int], bytes]) -> tuple[str, int] | None:
    # The header does not tell its length. Read byte by byte, so that nothing after it is lost.
    while not line.endswith(b"\r\n"):
        if len(line) == V1_MAX_BYTES:
            raise ProxyError(f"the PROXY header, version 1, is longer than {V1_MAX_BYTES} bytes")
        line += take(1)
    words = line[:-2].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return None
    try:
        _, family, client, server, client_port, server_port = words
        for address in (client, server):
            # ipaddress accepts any text after a %, as an IPv6 scope.
            if ipaddress.ip_address(address).version != _IP_VERSIONS[family] or "%" in address:
                raise ValueError(address)
        # The server's address and port are not used, but must be valid as well.
        _parse_port(server_port)
        return canonical(client), _parse_port(client_port)
    except (ValueError, KeyError):
        raise ProxyError("the PROXY header, version 1, is malformed") from None


def _read_version_2(take: Callable[[int], bytes]) -> tuple[str, int] | None:
    command, family, size = struct.unpack(">BBH", take(4))
    if command not in (_LOCAL, _PROXY):
        raise ProxyError(f"the PROXY header has the command 0x{command:02x}, which version 2 does not define")
    if size > V2_MAX_BYTES:
        raise ProxyError(f"the PROXY header announces {size} bytes; at most {V2_MAX_BYTES} are accepted")
    body = take(size)
    if command == _LOCAL or family in _NO_ADDRESS:
        return None
    if family not in _TCP_LAYOUTS:
        raise ProxyError(f"the PROXY header has the family 0x{family:02x}, which is not TCP")
    try:
        client, _, client_port, _ = struct.unpack_from(_TCP_LAYOUTS[family], body)
    except struct.error:
        raise ProxyError("the PROXY header, version 2, is too short for its addresses") from None
    return canonical(client), client_port


def _parse_port(text: str) -> int:
    if not re.fullmatch("0|[1-9][0-9]{0,4}", text) or int(text) > 65535:
        raise ValueError(text)
    return int(text)
