"""Files with certificates and keys: names, dates, and whether they belong together."""

from __future__ import annotations

import datetime
import os
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from etherws.check.certificate_files import look
from etherws.check.findings import Finding, Verdict
from tests.lab.pki import Authority, Certificate


def looked_at(path: Path, now: datetime.datetime | None = None) -> list[Finding]:
    """What is said of a file."""
    return list(look(str(path), path.read_bytes(), now))


def words(found: list[Finding]) -> str:
    return " | ".join(f"{each.verdict.value} {each.found}" for each in found)


@pytest.fixture
def pair(authority: Authority, tmp_path: Path) -> Certificate:
    """A certificate and its key, in a folder of their own."""
    made = authority.issue(("h.example", "192.0.2.1"))
    cert, key = tmp_path / "fullchain.pem", tmp_path / "privkey.pem"
    cert.write_bytes(made.cert.read_bytes() + authority.cert.read_bytes())
    key.write_bytes(made.key.read_bytes())
    os.chmod(key, 0o600)
    return Certificate(key, cert)


def test_a_certificate_and_its_key_beside_it(pair: Certificate) -> None:
    found = looked_at(pair.cert)
    assert [each.verdict for each in found] == [Verdict.OK] * 3
    assert found[0].found.startswith("for h.example, 192.0.2.1, by etherws test CA; 1 more behind it; pin sha256//")
    assert found[1].found.startswith("is valid until 2")
    assert found[2].found.endswith("privkey.pem is the key of this certificate")


def test_a_key_of_another_one(pair: Certificate, authority: Authority) -> None:
    pair.key.write_bytes(authority.issue().key.read_bytes())
    assert "failed " in words(looked_at(pair.cert)[-1:])
    assert "is not the key of this certificate" in words(looked_at(pair.cert))
    pair.key.write_text("-----BEGIN PRIVATE KEY-----\nbroken\n-----END PRIVATE KEY-----\n")
    assert len(looked_at(pair.cert)) == 2


def test_both_in_one_file(pair: Certificate) -> None:
    both = pair.cert.with_name("both.pem")
    both.write_bytes(pair.cert.read_bytes() + pair.key.read_bytes())
    os.chmod(both, 0o600)
    assert looked_at(both)[-1].data == {"kind": "key", "matches": True}
    os.chmod(both, 0o644)
    assert "failed every user of this machine can read it" in words(looked_at(both))


def test_a_key_alone(pair: Certificate) -> None:
    (found,) = looked_at(pair.key)
    assert found.found.startswith("a private key; pin sha256//")
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))
    assert "ENCRYPTED PRIVATE KEY" in pair.key.read_text()
    assert "the key is encrypted" in words(looked_at(pair.key))
    pair.key.write_text("-----BEGIN RSA PRIVATE KEY-----\nbroken\n-----END RSA PRIVATE KEY-----\n")
    assert "failed " in words(looked_at(pair.key))


@pytest.mark.parametrize(
    ("days", "verdict", "text"),
    [
        ((-10, -1), Verdict.FAILED, "it has expired"),
        ((1, 10), Verdict.FAILED, "is not valid before"),
        ((-1, 5), Verdict.WARNING, "it expires in 4 days"),
        ((-1, 100), Verdict.OK, "is valid until"),
    ],
)
def test_dates(authority: Authority, days: tuple[float, float], verdict: Verdict, text: str) -> None:
    found = looked_at(authority.issue(days=days).cert)
    assert found[1].verdict is verdict
    assert text in found[1].found


def test_the_chain_expires_before(pair: Certificate) -> None:
    late = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=31)
    assert [each.topic for each in looked_at(pair.cert, late) if each.verdict is Verdict.FAILED] == [
        "certificate",
        "chain: etherws test CA",
    ]


def test_an_authority_has_no_name_for_a_server(authority: Authority) -> None:
    found = looked_at(authority.cert)
    assert found[0].verdict is Verdict.NOTE
    assert found[0].found.startswith("etherws test CA, by etherws test CA: it has no name")


def test_der_and_what_is_broken(pair: Certificate, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(
        ssl.PEM_cert_to_DER_cert(pair.cert.read_text().partition("-----END")[0] + "-----END CERTIFICATE-----\n")
    )
    assert words(looked_at(path)).startswith(f"failed {path} is in DER form")
    for content, text in (
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "failed it is broken"),
        ("-----BEGIN CERTIFICATE-----\nä\n-----END CERTIFICATE-----\n", "failed it is broken"),
        ("-----BEGIN PUBLIC KEY-----\n", "note "),
        ("-----BEGIN X509 CRL-----\n", "note "),
        ("-----BEGIN SSH-----\n", "failed "),
        ("-----BEGIN \n", "failed "),
    ):
        path.write_text(content)
        assert words(looked_at(path)).startswith(text), content
