"""Which client the headers of proxies name, and what a client can make them name."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.addresses import Networks
from etherws.errors import ProxyError
from etherws.server.forwarded import FIELD_MAX_BYTES, UNTRUSTED_PROXY, follow

PROXIES = Networks(["10.0.0.0/8", "2001:db8:1::/48", "unix"])


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(
    lambda ip: str(getattr(ip, "ipv4_mapped", None) or ip)
)


def followed(peer: str = "10.0.0.1", trusted: Networks = PROXIES, /, **headers: str) -> dict[str, Any]:
    """The environment of a request from `peer` after follow()."""
    environ: dict[str, Any] = {"REMOTE_ADDR": peer, "REMOTE_PORT": "1", "wsgi.url_scheme": "http"}
    environ.update({f"HTTP_{name.upper()}": value for name, value in headers.items()})
    follow(environ, trusted)
    return environ


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({}, "10.0.0.1"),
        ({"x_forwarded_for": "192.0.2.1"}, "192.0.2.1"),
        # The client's own words stand to the left.
        ({"x_forwarded_for": "6.6.6.6, 192.0.2.1"}, "192.0.2.1"),
        ({"x_forwarded_for": "<script>,,192.0.2.1"}, "192.0.2.1"),
        ({"x_forwarded_for": "6.6.6.6,192.0.2.1,10.9.9.9 ,\t10.0.0.2"}, "192.0.2.1"),
        ({"x_forwarded_for": "10.0.0.3, 10.0.0.2"}, "10.0.0.3"),
        ({"x_forwarded_for": "192.0.2.1:4711"}, "192.0.2.1"),
        ({"x_forwarded_for": "2001:DB8::1"}, "2001:db8::1"),
        ({"x_forwarded_for": "[2001:db8::1]"}, "2001:db8::1"),
        ({"x_forwarded_for": "[2001:db8::1]:4711"}, "2001:db8::1"),
        ({"x_forwarded_for": "192.0.2.9, 2001:db8:1::7"}, "192.0.2.9"),
        ({"x_forwarded_for": "::ffff:192.0.2.1"}, "192.0.2.1"),
        ({"forwarded": "for=192.0.2.43"}, "192.0.2.43"),
        # RFC 7239, section 4.
        ({"forwarded": 'For="[2001:db8:cafe::17]:4711"'}, "2001:db8:cafe::17"),
        ({"forwarded": "for=192.0.2.60;proto=http;by=203.0.113.43"}, "192.0.2.60"),
        ({"forwarded": "for=192.0.2.43, for=198.51.100.17"}, "198.51.100.17"),
        ({"forwarded": 'by="a,b;for=6.6.6.6" ; for=192.0.2.1'}, "192.0.2.1"),
        ({"forwarded": 'for="192.0.2\\.1"'}, "192.0.2.1"),
        ({"forwarded": "for=192.0.2.1, for=10.0.0.2"}, "192.0.2.1"),
        ({"forwarded": "for=192.0.2.1", "x_forwarded_for": "192.0.2.1"}, "192.0.2.1"),
    ],
    ids=str,
)
def test_the_client_is_the_rightmost_who_is_no_proxy(headers: dict[str, str], address: str) -> None:
    environ = followed(**headers)
    assert environ["REMOTE_ADDR"] == address
    # Once more changes nothing.
    follow(environ, PROXIES)
    assert environ["REMOTE_ADDR"] == address


@pytest.mark.parametrize("peer", ["192.0.2.77", "2001:db8::1", "::ffff:192.0.2.77", "nonsense"])
def test_nobody_else_is_believed(peer: str) -> None:
    headers = {"x_forwarded_for": "127.0.0.1", "forwarded": "for=127.0.0.1", "x_forwarded_proto": "https"}
    environ = followed(peer, **headers)
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == (peer, "http")


@pytest.mark.parametrize("peer", ["10.255.255.255", "::ffff:10.0.0.1", "2001:db8:1:ffff::", ""])
def test_proxies_are_known_by_their_network_or_the_unix_socket(peer: str) -> None:
    assert followed(peer, x_forwarded_for="192.0.2.1")["REMOTE_ADDR"] == "192.0.2.1"
    assert followed(peer, Networks([]), x_forwarded_for="192.0.2.1")["REMOTE_ADDR"] == peer


@pytest.mark.parametrize(
    "headers",
    [
        {"x_forwarded_for": ""},
        {"x_forwarded_for": "192.0.2.1,"},
        {"x_forwarded_for": "192.0.2.1, unknown"},
        {"x_forwarded_for": "192.0.2.256"},
        {"x_forwarded_for": "fe80::1%eth0"},
        {"x_forwarded_for": "192.0.2.1 198.51.100.1"},
        {"x_forwarded_for": "\u0661.2.3.4"},
        {"x_forwarded_for": "1.2.3.4," * FIELD_MAX_BYTES},
        {"forwarded": ""},
        {"forwarded": "for=unknown"},
        {"forwarded": "for=_hidden"},
        {"forwarded": "proto=https"},
        {"forwarded": "for=192.0.2.1;for=192.0.2.2"},
        {"forwarded": "192.0.2.1"},
        {"forwarded": "for=[2001:db8::1]"},
        # A quote of the client's does not swallow what the proxy adds.
        {"forwarded": 'for=6.6.6.6;by=", for=192.0.2.1'},
        {"forwarded": 'for=6.6.6.6;by=", for="[2001:db8::1]"'},
        # The proxy set one of them, and the client the other.
        {"forwarded": "for=6.6.6.6", "x_forwarded_for": "192.0.2.1"},
    ],
    ids=lambda headers: str(headers)[:60],
)
def test_what_makes_no_sense_changes_nothing(headers: dict[str, str]) -> None:
    environ = {"REMOTE_ADDR": "10.0.0.1", **{f"HTTP_{name.upper()}": value for name, value in headers.items()}}
    before = dict(environ)
    with pytest.raises(ProxyError, match="Forwarded"):
        follow(environ, PROXIES)
    assert environ == before


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        ({"x_forwarded_proto": "https"}, "https"),
        ({"x_forwarded_proto": "WSS"}, "https"),
        ({"x_forwarded_proto": "http"}, "http"),
        ({"x_forwarded_proto": "https, http"}, "http"),
        ({"x_forwarded_proto": "https://"}, "http"),
        ({"forwarded": "for=192.0.2.1;proto=https"}, "https"),
        ({"forwarded": "for=6.6.6.6;proto=https, for=192.0.2.1;proto=http"}, "http"),
        ({"forwarded": "for=192.0.2.1;proto=https, for=10.0.0.2;proto=http"}, "http"),
        ({}, "http"),
    ],
    ids=str,
)
def test_the_scheme_is_the_worst_on_the_way(headers: dict[str, str], scheme: str) -> None:
    assert followed(**headers)["wsgi.url_scheme"] == scheme


@given(st.lists(ADDRESSES, max_size=5), ADDRESSES.filter(lambda address: address not in PROXIES), st.text(max_size=50))
def test_whatever_the_client_says_it_is_who_it_is(proxies: list[str], client: str, said: str) -> None:
    between = [address for address in proxies if address in PROXIES]
    environ = followed(x_forwarded_for=", ".join([said, client, *between]))
    assert environ["REMOTE_ADDR"] == client
    quoted = [f'for="[{each}]"' if ":" in each else f"for={each}" for each in (client, *between)]
    try:
        environ = followed(forwarded=", ".join([said, *quoted]))
    except ProxyError:
        return
    assert environ["REMOTE_ADDR"] == client


@given(st.text('for=".,:;[]\\ _0123456789abcdef', max_size=80), st.text(max_size=80))
def test_any_header_ends_in_an_address_or_an_error(forwarded: str, proto: str) -> None:
    for name in ("forwarded", "x_forwarded_for"):
        try:
            found = followed(**{name: forwarded}, x_forwarded_proto=proto)["REMOTE_ADDR"]
        except ProxyError:
            continue
        assert str(ipaddress.ip_address(found)) == found


@pytest.mark.parametrize(
    ("peer", "headers", "suspected"),
    [
        ("127.0.0.1", {"x_forwarded_for": "192.0.2.1"}, True),
        ("192.168.1.1", {"forwarded": "for=192.0.2.1"}, True),
        ("::ffff:172.16.0.1", {"x_forwarded_for": ""}, True),
        ("fe80::1%eth0", {"x_forwarded_for": "192.0.2.1"}, True),
        ("", {"x_forwarded_for": "192.0.2.1"}, True),
        # Whoever is far away may write what he likes.
        ("8.8.8.8", {"x_forwarded_for": "192.0.2.1"}, False),
        ("2606:4700::1", {"forwarded": "for=192.0.2.1"}, False),
        ("127.0.0.1", {}, False),
        # This one is trusted.
        ("10.0.0.1", {"x_forwarded_for": "192.0.2.1"}, False),
    ],
)
def test_a_proxy_that_nobody_has_named_is_noticed(peer: str, headers: dict[str, str], suspected: bool) -> None:
    environ = followed(peer, Networks(["10.0.0.0/8"]), **headers)
    assert bool(environ.get(UNTRUSTED_PROXY)) is suspected
