"""Certificates: pins, and the contexts' limits. The handshakes are in tests/system/test_trust.py."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.access import certificates
from etherws.access.certificates import client_context, parse_pins, proxy_context
from etherws.errors import ListenError, SettingsError
from etherws.settings import Trust
from tests.lab.pki import Authority, Certificate, pin_of, public_key, rewritten


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


#: What the cryptography library refuses of a certificate, and OpenSSL takes: bytes to find, and what to put there.
REFUSED_BY_CRYPTOGRAPHY = {
    "version 6": (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05"),
    "a country of one letter": (b"\x06\x03\x55\x04\x0a", b"\x06\x03\x55\x04\x06"),
    "a name that is not UTF-8": (b"tests", b"\xff\xfe\xfd\xfc\xfb"),
    "an extension that nobody knows": (b"\x06\x03\x55\x1d\x11", b"\x06\x03\x55\x1d\x7e"),
}


@pytest.mark.parametrize("case", REFUSED_BY_CRYPTOGRAPHY)
def test_the_pin_depends_on_the_key_alone(authority: Authority, case: str) -> None:
    pair = authority.issue()
    assert pin_of(rewritten(pair, *REFUSED_BY_CRYPTOGRAPHY[case])) == pin_of(pair)


def test_the_pin_of_an_rsa_key_and_of_version_1(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue(weak=True)
    file = tmp_path / "key"
    file.write_bytes(public_key(pair))
    assert parse_pins(str(file)) == {pin_of(pair)}
    der = ssl.PEM_cert_to_DER_cert(pair.cert.read_text())
    before = certificates.pin_of(der)
    version = der.index(b"\xa0\x03\x02\x01\x02")
    assert der[:1] == der[4:5] == b"\x30"
    shorter = [der[:2], (int.from_bytes(der[2:4], "big") - 5).to_bytes(2, "big"), der[4:6]]
    shorter += [(int.from_bytes(der[6:8], "big") - 5).to_bytes(2, "big"), der[version + 5 :]]
    assert certificates.pin_of(b"".join(shorter)) == before


@given(data=st.data())
def test_no_bytes_make_pin_of_raise_anything_but_value_error(certificate: Certificate, data: st.DataObject) -> None:
    der = bytearray(ssl.PEM_cert_to_DER_cert(certificate.cert.read_text()))
    for index, byte in data.draw(st.dictionaries(st.integers(0, 150), st.integers(0, 255), max_size=4)).items():
        der[index] = byte
    with contextlib.suppress(ValueError):
        assert certificates.pin_of(bytes(der[: data.draw(st.integers(0, len(der)))])).startswith("sha256//")


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30",
        b"\x30\x80",
        b"\x30\x81\x05\x30\x03\x02\x01\x01",
        b"\x30\x82\x00\x02\x30\x00",
        b"\x30\xff" + b"\xff" * 127,
    ],
)
def test_what_is_not_der_has_no_pin(der: bytes) -> None:
    with pytest.raises(ValueError, match="element"):
        certificates.pin_of(der)


def test_every_client_context_verifies_and_refuses_old_tls() -> None:
    for context in (client_context(Trust()), proxy_context()):
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION


def test_the_file_that_is_the_wrong_one_is_named(certificate: Certificate, tmp_path: Path) -> None:
    der, empty = tmp_path / "server.der", tmp_path / "empty"
    der.write_bytes(ssl.PEM_cert_to_DER_cert(certificate.cert.read_text()))
    empty.touch()
    convert = ", it is in DER or PKCS #12 form: convert it by openssl"
    for cert, key, words in (
        (der, certificate.key, f"; {der} has no certificate{convert}"),
        (empty, certificate.key, f"; {empty} has no certificate"),
        (certificate.cert, empty, f"; {empty} has no private key"),
        (
            certificate.key,
            certificate.cert,
            f"; {certificate.key} has no certificate; {certificate.cert} has no private key",
        ),
    ):
        with pytest.raises(ListenError) as found:
            certificates.server_context(str(cert), str(key))
        assert str(found.value).endswith(f"they are not a key and a certificate in PEM form{words}")


def test_when_a_certificate_expires(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue(days=(-1, 30))
    left = (certificates.expiry(str(pair.cert)) or 0) - time.time()
    assert 28 * 86_400 < left < 31 * 86_400
    chain = tmp_path / "chain.pem"
    chain.write_bytes(pair.cert.read_bytes() + authority.cert.read_bytes())
    assert certificates.expiry(str(chain)) == certificates.expiry(str(pair.cert))
    for content in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", bytes(100)):
        chain.write_bytes(content)
        assert certificates.expiry(str(chain)) is None
    assert certificates.expiry(str(tmp_path / "none")) is None


def test_authorities_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"^cannot read --cacert /a+: File name too long$"):
        client_context(Trust(cacert=f"/{'a' * 300}"))

    def refuse(path: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(path))

    # As another user than root.
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(SettingsError, match=f"^cannot read --cacert {tmp_path}: Permission denied$"):
        client_context(Trust(cacert=str(tmp_path)))
