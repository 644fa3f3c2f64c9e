"""A server's own certificate, signed by itself, and its private key: for clients that know the server by its key.

Read next: certificates.py, which uses such files; cli/init/server.py, which has them made.
"""

from __future__ import annotations

import datetime
import ipaddress

#: How long it holds. Clients that know the key do not look at it; it is for those who look by hand.
LIFETIME = datetime.timedelta(days=3650)


def new_certificate(host: str) -> tuple[bytes, bytes]:
    """The certificate and the private key, both in PEM form. `host` is the name or the address of the server.

    The key is of P-256: every TLS of today knows it, and it signs fast.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = generate_private_key(SECP256R1())
    # RFC 5280, appendix A.1: a common name has 64 characters at most.
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host[:64])])
    try:
        shown: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        shown = x509.DNSName(host)
    # The clock of the other side may be behind.
    begins = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([shown]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    certificate = builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    return certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
