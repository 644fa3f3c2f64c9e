"""A certificate authority of the tests' own: good certificates, and every kind of bad one."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from etherws.access import certificates

NOW = datetime.datetime.now(datetime.timezone.utc)

#: What the tests' servers are called.
SERVER = ("localhost", "127.0.0.1", "192.0.2.1", "198.51.100.1")


class Certificate(NamedTuple):
    """Files in PEM form."""

    key: Path
    cert: Path


class Authority:
    """Signs certificates; `cert` is its own, a file in PEM form."""

    def __init__(self, folder: Path, name: str = "etherws test CA") -> None:
        self._folder, self._count = folder, 0
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.cert = folder / f"{name.replace(' ', '-')}.crt"
        built = _builder(self._name, self._name, self._key.public_key(), (-1, 30))
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        built = built.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"), False
        )
        usage |= dict.fromkeys(("key_agreement", "encipher_only", "decipher_only"), False)
        built = built.add_extension(x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True)
        self.cert.write_bytes(built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        names: tuple[str, ...] = SERVER,
        *,
        common: str = "etherws test",
        days: tuple[float, float] = (-1, 30),
        usage: str = "",
        weak: bool = False,
        signed: bool = True,
    ) -> Certificate:
        """A certificate for these names, the first and last day of it counted from today; for `usage` server or client
        only; with a `weak` key; or `signed` by itself."""
        key: Any = rsa.generate_private_key(65537, 1024) if weak else ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else []
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, "tests"))
        subject = x509.Name(parts)
        built = _builder(subject, self._name if signed else subject, key.public_key(), days)
        if signed:
            # Python 3.13 asks for it by default (RFC 5280, section 4.2.1.1).
            issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
            built = built.add_extension(issuer, critical=False)
        if names:
            built = built.add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        if usage:
            oid = ExtendedKeyUsageOID.SERVER_AUTH if usage == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
            built = built.add_extension(x509.ExtendedKeyUsage([oid]), critical=False)
        self._count += 1
        pair = Certificate(*(self._folder / f"{self.cert.stem}-{self._count}.{end}" for end in ("key", "crt")))
        pair.cert.write_bytes(
            built.sign(self._key if signed else key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        form = serialization.PrivateFormat.PKCS8
        pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return pair

    def revoke(self, *revoked: Certificate) -> bytes:
        """A list of revoked certificates, in PEM form."""
        built = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        built = built.last_update(NOW - datetime.timedelta(days=1)).next_update(NOW + datetime.timedelta(days=30))
        for pair in revoked:
            serial = x509.load_pem_x509_certificate(pair.cert.read_bytes()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
            built = built.add_revoked_certificate(entry)
        return built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _builder(subject: x509.Name, issuer: x509.Name, key: Any, days: tuple[float, float]) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + datetime.timedelta(days=days[0]))
        .not_valid_after(NOW + datetime.timedelta(days=days[1]))
    )


def _name(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    if "@" in name:
        return x509.RFC822Name(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def make_certificate(folder: Path) -> Certificate:
    """A fresh self-signed certificate."""
    return Authority(folder).issue(signed=False)


def public_key(pair: Certificate) -> bytes:
    """A certificate's public key, PEM."""
    key = x509.load_pem_x509_certificate(pair.cert.read_bytes()).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def pin_of(pair: Certificate) -> str:
    """A certificate's pin, sha256//BASE64."""
    return certificates.pin_of(ssl.PEM_cert_to_DER_cert(pair.cert.read_text()))


def rewritten(pair: Certificate, old: bytes, new: bytes) -> Certificate:
    """The certificate with `new` for the first `old` in what is signed, as many bytes of it, and signed by its own key
    (EC) once more. The new file lies beside it."""
    der = ssl.PEM_cert_to_DER_cert(pair.cert.read_text())
    certificate = x509.load_der_x509_certificate(der)
    signed, signature = certificate.tbs_certificate_bytes, certificate.signature
    algorithm = der[der.index(signed) + len(signed) : der.index(signature)]
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert old in signed
    assert len(old) == len(new)
    signed = signed.replace(old, new, 1)
    while len(fresh := key.sign(signed, ec.ECDSA(hashes.SHA256()))) != len(signature):
        # An ECDSA signature in DER form has 70 to 72 bytes. This one's length is in what is kept.
        pass
    cert = pair.cert.with_suffix(".rewritten.crt")
    cert.write_text(
        ssl.DER_cert_to_PEM_cert(der[: der.index(certificate.tbs_certificate_bytes)] + signed + algorithm + fresh)
    )
    return Certificate(pair.key, cert)
