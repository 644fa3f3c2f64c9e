"""Reverse proxies and services, by what they answer."""

from __future__ import annotations

import pytest

from etherws.check.path.hops import hops, marks
from tests.lab.checking import answer

#: Headers, body, the names in their order, and what the first says of the status.
CASES: list[tuple[list[str], bytes, list[str]]] = [
    (["Server: cloudflare", "CF-RAY: 8f-FRA"], b"error code: 1033", ["Cloudflare"]),
    (
        ["Location: https://x.cloudflareaccess.com/cdn-cgi", "Server: cloudflare"],
        b"",
        ["Cloudflare Access", "Cloudflare"],
    ),
    (["Server: CloudFront", "Via: 1.1 abc.cloudfront.net (CloudFront)"], b"", ["Amazon CloudFront"]),
    (["Server: awselb/2.0"], b"<html><head><title>502", ["an AWS application load balancer"]),
    (["Via: 1.1 google"], b"", ["Google's load balancer"]),
    (["Server: Microsoft-Azure-Application-Gateway/v2"], b"", ["Azure Application Gateway"]),
    (["Server: nginx/1.22.1"], b"", ["nginx"]),
    ([], b"<html><body><center>nginx</center></body></html>", ["nginx"]),
    (["Server: cloudflare", "X-Cache: a", "Via: 1.1 Caddy"], b"", ["Cloudflare", "Caddy"]),
    ([], b"<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this request.", ["HAProxy"]),
    ([], b"upstream connect error or disconnect/reset before headers", ["Envoy"]),
    (["Server: istio-envoy"], b"", ["Envoy"]),
    ([], b"404 page not found\n", ["Traefik"]),
    (["Server: Caddy"], b"", ["Caddy"]),
    (["Server: Apache/2.4.57 (Debian)"], b"", ["Apache"]),
    (["Server: squid/5.7", "X-Squid-Error: ERR_ACCESS_DENIED 0"], b"", ["Squid"]),
    (["X-Varnish: 3", "Via: 1.1 varnish (Varnish/7.1)"], b"", ["Varnish"]),
    (["Server: Zscaler/6.2"], b"", ["a web filter (Zscaler)"]),
    (["Server: \udcff"], b"\xff\xfe", []),
    ([], b"", []),
]


@pytest.mark.parametrize(("headers", "body", "names"), CASES)
def test_a_hop_is_known_by_its_answer(headers: list[str], body: bytes, names: list[str]) -> None:
    assert [hop.name for hop in hops(answer(*headers), body)] == names


def test_each_hop_says_how_it_is_mended() -> None:
    for headers, body, _ in CASES:
        for hop in hops(answer(*headers), body):
            assert hop.upgrade or hop.statuses
            for text in (hop.upgrade, *hop.statuses.values()):
                assert text.isprintable()


def test_what_the_headers_say_of_themselves() -> None:
    found = answer("Server: a\x1b[31mb", "Via: 1.1 x", "Via: 1.1 y", "Server:")
    assert marks(found) == "Server: a?[31mb, Via: 1.1 x, Via: 1.1 y"
    assert marks(answer()) == ""
