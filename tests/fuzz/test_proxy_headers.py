"""What a reverse proxy says about its client: PROXY headers, X-Forwarded-For and Forwarded, each read a second time."""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from etherws.addresses import Networks
from etherws.errors import ProxyError
from etherws.server import forwarded, proxy_protocol

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

addresses = st.ip_addresses().map(str) | st.sampled_from(
    ["::ffff:192.0.2.7", "::1", "fe80::1%eth0", "192.0.2.01", "192.0.2", "", "unknown", "_hidden", "2001:DB8::A"]
)
ports = st.integers(0, 65536).map(str) | st.sampled_from(["00", "080", "+1", "", "99999"])


def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The data, or with one byte cut out, changed or put in."""
    at = draw(st.integers(0, len(data)))
    how = draw(st.sampled_from(["whole", "whole", "whole", "cut", "byte"]))
    if how == "whole":
        return data
    return data[:at] if how == "cut" else data[:at] + draw(st.binary(max_size=1)) + data[at + draw(st.integers(0, 1)) :]


@st.composite
def first_versions(draw: st.DrawFn) -> bytes:
    """Headers of version 1."""
    family = draw(st.sampled_from(["TCP4", "TCP6", "TCP4", "TCP6", "UNKNOWN", "UDP4", "tcp4"]))
    words = ["PROXY", family, draw(addresses), draw(addresses), draw(ports), draw(ports)]
    del words[draw(st.sampled_from([6, 6, 6, 5, 2])) :]
    text = draw(st.sampled_from([" ", " ", " ", "  ", "\t"])).join(words)
    return damaged(draw, text.encode("latin-1", "replace") + b"\r\n")


@st.composite
def second_versions(draw: st.DrawFn) -> bytes:
    """Headers of version 2."""
    body = draw(st.binary(max_size=60)) or bytes(draw(st.sampled_from([12, 36, 216, 2048, 2049])))
    head = bytes(
        [draw(st.sampled_from([0x20, 0x21, 0x21, 0x22, 0x11])), draw(st.sampled_from([0, 0x11, 0x21, 0x31, 0x12]))]
    )
    size = max(0, len(body) + draw(st.sampled_from([0, 0, 0, 0, 1, -1])))
    return damaged(draw, SIGNATURE + head + size.to_bytes(2, "big") + body)


def expected_header(data: bytes) -> tuple[str, int] | str | None:
    """The address and port by proxy-protocol.txt, None if there is none, or "wrong"."""
    if data.startswith(SIGNATURE):
        if len(data) < 16:
            return "wrong"
        command, family, size = struct.unpack(">BBH", data[12:16])
        body = data[16 : 16 + size]
        if command not in (0x20, 0x21) or size > 2048 or len(body) < size:
            return "wrong"
        if command == 0x20 or family in (0, 0x31):
            return None
        wide = {0x11: 4, 0x21: 16}.get(family)
        if wide is None or size < 2 * wide + 4:
            return "wrong"
        return plain(ipaddress.ip_address(body[:wide])), int.from_bytes(body[2 * wide : 2 * wide + 2], "big")
    line, end, _ = data[:107].partition(b"\r\n")
    if not end or not line.startswith(b"PROXY ") or len(data) < 12:
        return "wrong"
    words = line.decode("latin-1").split(" ")
    # It may be in the first twelve bytes, which are read at once: those may hold no line end before their last.
    if words[1] == "UNKNOWN":
        return None
    kinds: dict[str, Any] = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}
    kind = kinds.get(words[1])
    if kind is None or len(words) != 6 or "%" in words[2] + words[3]:
        return "wrong"
    for port in words[4:]:
        if not re.fullmatch("[0-9]{1,5}", port) or str(int(port)) != port or int(port) > 65535:
            return "wrong"
    try:
        kind(words[3])
        return plain(kind(words[2])), int(words[4])
    except ValueError:
        return "wrong"


def plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """The usual form, without a mapping."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


@given(first_versions() | second_versions() | st.binary(max_size=130), st.binary(max_size=5))
def test_a_proxy_header_is_read_as_its_specification_says(header: bytes, behind: bytes) -> None:
    data = header + behind
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        piece = data[at : at + size]
        at += len(piece)
        return piece

    expected = expected_header(data)
    try:
        found: tuple[str, int] | str | None = proxy_protocol.read_header(read)
    except ProxyError:
        found = "wrong"
    assert found == expected
    if found != "wrong":
        # Not a byte behind the header.
        size = 16 + int.from_bytes(data[14:16], "big") if data.startswith(SIGNATURE) else data.index(b"\r\n") + 2
        assert at == size


TRUSTED = Networks(["192.0.2.0/24", "2001:db8::/32"])
hops = st.sampled_from(["192.0.2.7", "198.51.100.9", "2001:db8::7", "2001:db9::1", "::ffff:192.0.2.7"]) | addresses
nodes = st.one_of(
    hops,
    hops.map('"[{}]"'.format),
    st.tuples(hops, ports).map(lambda pair: '"[{}]:{}"'.format(*pair)),
    st.tuples(hops, ports).map(lambda pair: "{}:{}".format(*pair)),
    hops.map('"{}"'.format),
    st.text(st.characters(codec="latin-1"), max_size=6),
)
pairs = st.one_of(
    nodes.map("for={}".format), st.sampled_from(["proto=https", "PROTO=http", "by=_x", 'host="a,b;c"', ""])
)
elements = st.lists(pairs, min_size=1, max_size=3).map(";".join)
values = st.lists(elements, max_size=4).map(",".join) | st.text(st.characters(codec="latin-1"), max_size=40)


@given(
    st.sampled_from(["192.0.2.1", "203.0.113.1", "", "::ffff:192.0.2.1"]),
    st.none() | st.lists(hops, max_size=4).map(", ".join) | st.text(max_size=20),
    st.none() | values,
    st.none() | st.sampled_from(["https", "http", "wss, https", "", " ,"]),
)
def test_a_forwarded_address_is_the_first_from_the_right_that_is_no_proxy(
    peer: str, simple: str | None, full: str | None, proto: str | None
) -> None:
    given_headers = {"X_FORWARDED_FOR": simple, "FORWARDED": full, "X_FORWARDED_PROTO": proto}
    headers = {f"HTTP_{name}": value for name, value in given_headers.items() if value is not None}
    before = {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http", **headers}
    environ = dict(before)
    try:
        forwarded.follow(environ, TRUSTED)
    except ProxyError:
        assert environ == before
        return
    if peer not in TRUSTED:
        noticed = environ.pop(forwarded.UNTRUSTED_PROXY)
        assert not noticed or simple is not None or full is not None
        assert environ == before
        return
    assert environ["wsgi.url_scheme"] in ("http", "https")
    found = environ["REMOTE_ADDR"]
    if simple is None and full is None:
        assert found == peer
        return
    assert found == plain(ipaddress.ip_address(found))
    # An address that was told at all, and whatever is right of it is a trusted proxy.
    if simple is not None and full is None:
        told = [word.strip(" \t") for word in simple.split(",")]
        for word in reversed(told):
            bare = re.sub(r"^\[(.*)\](:\d+)?$", r"\1", word)
            bare = bare.partition(":")[0] if "." in bare and bare.count(":") == 1 else bare
            if plain(ipaddress.ip_address(bare)) == found:
                break
            assert plain(ipaddress.ip_address(bare)) in TRUSTED
        else:
            raise AssertionError(f"{found} is not among {told}")
