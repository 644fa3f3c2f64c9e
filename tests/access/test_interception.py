"""Who has made a certificate, by its issuer's name."""

from __future__ import annotations

import pytest

from etherws.access.interception import is_public, product


@pytest.mark.parametrize(
    ("issuer", "found"),
    [
        ("CN=Zscaler Intermediate Root CA (zscalertwo.net),O=Zscaler Inc.", "Zscaler"),
        ("CN=FG100E,OU=Certificate Authority,O=Fortinet", "Fortinet FortiGate"),
        ("CN=mitmproxy,O=mitmproxy", "mitmproxy"),
        ("CN=ESET SSL Filter CA", "ESET"),
        ("CN=Reset Corp CA", ""),
        ("CN=Gateway CA - Cloudflare Managed G1,O=Cloudflare\\, Inc.", "Cloudflare Gateway"),
        # A public authority of the same maker.
        ("CN=Trend Micro via DigiCert,O=DigiCert Inc", ""),
        ("CN=etherws test CA", ""),
    ],
)
def test_a_product_is_known_by_its_issuer(issuer: str, found: str) -> None:
    assert product(["CN=first", issuer]) == found


def test_public_authorities() -> None:
    assert is_public(["CN=R11,O=Let's Encrypt,C=US"])
    assert is_public(["CN=x", "CN=GTS Root R1,O=Google Trust Services LLC,C=US"])
    assert not is_public(["CN=Example Corp CA"])
