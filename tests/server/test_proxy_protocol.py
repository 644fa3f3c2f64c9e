"""The PROXY protocol's header: which client it names, and what is refused."""

from __future__ import annotations

import io
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.errors import ProxyError
from etherws.server.proxy_protocol import V1_MAX_BYTES, V2_MAX_BYTES, read_header
from tests.lab.proxy_protocol import IPV4, IPV6, SIGNATURE, version_2


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n", ("192.0.2.1", 4711)),
        (b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", ("2001:db8::1", 65535)),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", ("192.0.2.1", 1)),
        (b"PROXY UNKNOWN\r\n", None),
        # The longest line that there can be.
        (b"PROXY UNKNOWN " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n", None),
        (version_2(0x21, 0x11, IPV4), ("192.0.2.1", 4711)),
        (version_2(0x21, 0x21, IPV6), ("2001:db8::1", 4711)),
        (version_2(0x21, 0x11, IPV4 + b"\x02\x00\x04host"), ("192.0.2.1", 4711)),
        (version_2(0x21, 0x11, IPV4 + b"\x04" * (V2_MAX_BYTES - 12)), ("192.0.2.1", 4711)),
        (version_2(0x20, 0x00, b""), None),
        (version_2(0x20, 0x11, IPV4), None),
        (version_2(0x21, 0x00, b"whatever"), None),
        (version_2(0x21, 0x31, b"/run/x".ljust(216, b"\0")), None),
    ],
    ids=lambda header: repr(header)[:60],
)
def test_a_header_names_the_client(header: bytes, found: tuple[str, int] | None) -> None:
    wire = io.BytesIO(header + b"GET / HTTP/1.1\r\n")
    assert read_header(wire.read) == found
    assert wire.read() == b"GET / HTTP/1.1\r\n"
    # Every byte of it is needed.
    for size in range(len(header)):
        with pytest.raises(ProxyError, match="ended before"):
            read_header(io.BytesIO(header[:size]).read)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "no PROXY header"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00", "no PROXY header"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 4711\r\n", "malformed"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443 1\r\n", "malformed"),
        (b"PROXY TCP4 192.0.2.1  198.51.100.1 4711 443\r\n", "malformed"),
        (b"PROXY TCP4 192.0.2.256 198.51.100.1 4711 443\r\n", "malformed"),
        (b"PROXY TCP4 2001:db8::1 ::1 4711 443\r\n", "malformed"),
        (b"PROXY TCP6 fe80::1%\x1b[2J ::1 4711 443\r\n", "malformed"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n", "malformed"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 047 443\r\n", "malformed"),
        (b"PROXY UDP4 192.0.2.1 198.51.100.1 4711 443\r\n", "malformed"),
        (b"PROXY \r\n\r\n\r\n\r\n\r\n", "malformed"),
        (b"PROXY UNKNOWN".ljust(V1_MAX_BYTES + 1), "longer than 107"),
        (version_2(0x11, 0x11, IPV4), "command 0x11"),
        (version_2(0x22, 0x11, IPV4), "command 0x22"),
        (version_2(0x21, 0x12, IPV4), "family 0x12, which is not TCP"),
        (version_2(0x21, 0x11, IPV4[:-1]), "too short"),
        (version_2(0x21, 0x21, IPV4), "too short"),
        (version_2(0x21, 0x11, b"", V2_MAX_BYTES + 1), "announces 2049 bytes"),
        (version_2(0x21, 0x11, b"", 65535), "announces 65535 bytes"),
    ],
    ids=lambda header: repr(header)[:60],
)
def test_a_malformed_header_is_refused(header: bytes, words: str) -> None:
    with pytest.raises(ProxyError, match=words):
        read_header(io.BytesIO(header).read)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=120).map(b"PROXY ".__add__),
        st.text("TCP46 0123456789.:abcdef\r\n", max_size=120).map(lambda text: b"PROXY TCP" + text.encode()),
        st.binary(max_size=300).map(SIGNATURE.__add__),
        st.builds(version_2, st.integers(0x20, 0x22), st.sampled_from([0, 0x11, 0x21, 0x31, 0x12]), st.binary()),
    )
)
def test_any_bytes_end_in_an_address_or_an_error_and_no_byte_too_many_is_read(data: bytes) -> None:
    asked = 0
    wire = io.BytesIO(data)

    def read(size: int) -> bytes:
        nonlocal asked
        asked += size
        return wire.read(size)

    try:
        found = read_header(read)
    except ProxyError:
        found = None
    assert asked <= len(SIGNATURE) + 4 + V2_MAX_BYTES
    if found:
        assert str(ipaddress.ip_address(found[0])) == found[0]
        assert 0 <= found[1] <= 65535
