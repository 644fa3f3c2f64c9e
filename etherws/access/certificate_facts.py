"""What a certificate says of itself, for the text of an error: its names, issuer, dates and key's pin.

Nothing is verified or decided by it: OpenSSL does that. A certificate that the cryptography library does not take has
no facts. Read next: certificates.py; client/tls_refusals.py, the user.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from etherws.access.certificates import FILE_MAX, pin_of, pin_of_key
from etherws.errors import SettingsError, printable
from etherws.small_files import read_file


@dataclass(frozen=True)
class Facts:
    """All texts are printable. `names` are those that a client compares (RFC 9525): DNS names and addresses. `subject`
    and `issuer` are short; `authority` and `whole_subject` are all of the name."""

    names: tuple[str, ...]
    issuer: str
    begins: datetime.datetime
    ends: datetime.datetime
    pin: str
    subject: str
    authority: str
    whole_subject: str = ""


def facts_of(der: bytes) -> Facts | None:
    """The facts of a certificate in DER form, which may come from a stranger; None if it cannot be read."""
    from cryptography import x509

    try:
        found = x509.load_der_x509_certificate(der)
        return Facts(
            tuple(map(printable, _names(found))),
            printable(_shown(found.issuer)),
            found.not_valid_before_utc,
            found.not_valid_after_utc,
            pin_of(der),
            printable(_shown(found.subject)),
            printable(found.issuer.rfc4514_string()),
            printable(found.subject.rfc4514_string()),
        )
    except Exception:
        # The library has many errors for what it does not take, not all of them ValueError. The facts are only a help.
        return None


def facts_of_file(path: str) -> Facts | None:
    """The facts of the first certificate in a PEM file; None if it cannot be read."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        found = x509.load_pem_x509_certificates(read_file(path, FILE_MAX))
        return facts_of(found[0].public_bytes(Encoding.DER))
    except (OSError, ValueError):
        return None


def pin_of_private_key(data: bytes) -> str:
    """The pin of the public key that belongs to the private key in a PEM file. Raises SettingsError, which shows
    nothing of the key."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    try:
        key = load_pem_private_key(data, None)
        der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except TypeError:
        raise SettingsError("the key is encrypted; decrypt it first ('openssl pkey')") from None
    except Exception:
        # As for facts_of(). "from None": an error may hold some of the key.
        raise SettingsError("this is no private key that can be read; make a new one") from None
    return pin_of_key(der)


def _names(certificate: object) -> list[str]:
    from cryptography import x509

    assert isinstance(certificate, x509.Certificate)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _shown(name: object) -> str:
    """An issuer's common name; if it has none, all of its name."""
    from cryptography import x509

    assert isinstance(name, x509.Name)
    common = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string()
