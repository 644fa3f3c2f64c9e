"""Certificates: pins, identities, and the contexts' limits. The handshakes are in tests/system/test_trust.py."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from etherws.access.certificates import client_context, identity_of, parse_pins, proxy_context
from etherws.errors import SettingsError
from etherws.settings import Trust
from tests.lab.pki import Authority, pin_of, public_key


def test_pins_are_read_as_curl_reads_them(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue()
    file = tmp_path / "key"
    file.write_bytes(public_key(pair))
    assert parse_pins(str(file)) == parse_pins(pin_of(pair)) == {pin_of(pair)}
    file.write_bytes(ssl.PEM_cert_to_DER_cert(public_key(pair).decode().replace("PUBLIC KEY", "CERTIFICATE")))
    assert parse_pins(str(file)) == {pin_of(pair)}
    for bad in ("sha256//", "sha1//AAAA", f"{pin_of(pair)};", "sha256//" + "A" * 44):
        with pytest.raises(SettingsError, match="--pinnedpubkey"):
            parse_pins(bad)


def test_a_certificate_that_names_nobody_has_no_identity() -> None:
    assert identity_of({}) is None
    address_only = {"subjectAltName": (("IP Address", "192.0.2.1"),), "subject": ((("organizationName", "x"),),)}
    assert identity_of(address_only) is None
    assert identity_of({"subject": ((("commonName", "ca"),), (("commonName", "alice"),))}) == "alice"


def test_the_first_usable_name_is_the_identity() -> None:
    names = (("IP Address", "192.0.2.1"), ("DNS", ""), ("email", "alice@example.org"), ("DNS", "example.org"))
    assert identity_of({"subjectAltName": names, "subject": ((("commonName", "x"),),)}) == "alice@example.org"


def test_every_client_context_verifies_and_refuses_old_tls() -> None:
    for context in (client_context(Trust()), proxy_context()):
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION
