"""TLS contexts for both ends, and the pin of a server's certificate.

Both ends of a tunnel use Mozilla's intermediate profile: TLS 1.2 and 1.3, forward secrecy, authenticated ciphers. ALPN
offers only http/1.1: with HTTP/2 there is no upgrade to WebSocket. Read next: tunnel/tls.py, which uses a context for a
connection, and client_certificates.py, which verifies a client's certificate again.
"""

from __future__ import annotations

import _ssl
import base64
import hashlib
import os
import re
import ssl
from pathlib import Path
from typing import Any

from etherws.access.client_certificates import Authorities
from etherws.errors import ListenError, SettingsError
from etherws.file_names import to_read
from etherws.settings import Trust
from etherws.small_files import read_file

#: environ[CERTIFICATE] is the client's verified certificate, a ClientCertificate; server/http.py sets it.
CERTIFICATE = "etherws.certificate"

#: Bytes of a file: far more than all authorities of the world need (Mozilla's are 220 KB).
FILE_MAX = 16 << 20

#: The ciphers of TLS 1.2: Mozilla's "Server Side TLS", version 5.7, intermediate, without finite-field DH, for which
#: the administrator would have to make parameters. Security level 2 refuses keys below 112 bits of strength, and
#: signatures with SHA-1.
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:@SECLEVEL=2"
)

_CRL_HEADER = b"-----BEGIN X509 CRL-----"

#: How the line before every kind of private key ends.
_KEY_MARK = b"PRIVATE KEY-----"

#: How the files in a directory of authorities are named.
_SUFFIXES = (".pem", ".crt", ".cer")


def server_context(certfile: str, keyfile: str, client_ca: str | None = None) -> ssl.SSLContext:
    """A server's context. With `client_ca`, a PEM file of authorities, each client must show a certificate that one of
    them signed; if the file has a CRL as well, the certificate must not be revoked. The context's attribute
    `authorities` can then verify a certificate again (client_certificates.py).

    Raises ListenError, which names the file.
    """
    context = _tunnel_context(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    try:
        _load_certificate(context, certfile, keyfile)
        if client_ca:
            authorities = _read_file("--client-ca", client_ca)
            _load_authorities(context, "--client-ca", client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
            revocation = _CRL_HEADER in authorities
            if revocation:
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
            # An attribute and not a class of ours: gevent warns of subclasses that were made before it patched ssl.
            context.authorities = Authorities(client_ca, revocation=revocation)  # type: ignore[attr-defined]
            # TLS does not verify the certificate again when a session is resumed: it may have expired since. Without
            # tickets, TLS 1.3 resumes none. TLS 1.2 can still do so by a session's number, which Python cannot switch
            # off: therefore server/authenticate.py has each certificate verified again.
            context.num_tickets = 0
            context.options |= ssl.OP_NO_TICKET
    except SettingsError as exc:
        raise ListenError(str(exc)) from exc
    return context


def expiry(certfile: str) -> float | None:
    """When the first certificate in a PEM file expires, in seconds since 1970; None if it cannot be read."""
    try:
        # Not documented, and in Python since 2.6. The cryptography library can do it, too, but takes 6 MB.
        found = _ssl._test_decode_cert(to_read(certfile))  # type: ignore[attr-defined]
        return float(ssl.cert_time_to_seconds(found["notAfter"]))
    except (OSError, ValueError, KeyError):
        return None


def client_context(trust: Trust) -> ssl.SSLContext:
    """A client's context. It verifies the server by `trust.cacert` (a PEM file, or a directory of them) or else by the
    system's store, and shows the client's own certificate if there is one.

    Raises SettingsError, which names the file.
    """
    context = _tunnel_context(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    if trust.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif trust.cacert:
        _load_authorities(context, "--cacert", trust.cacert)
    else:
        context.load_default_certs()
    if trust.certfile:
        _load_certificate(context, trust.certfile, trust.keyfile or trust.certfile)
    return context


def proxy_context() -> ssl.SSLContext:
    """The client's context for an https:// proxy, which is not ours: TLS 1.2 or later with OpenSSL's own choice of
    ciphers, verified by the system's store."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.load_default_certs()
    return context


def parse_pins(text: str) -> frozenset[str]:
    """The pins in the value of ``--pinnedpubkey``. As with curl, that is sha256//BASE64, or several of them with ``;``
    between, or the name of a PEM or DER file with a public key. Raises SettingsError."""
    if not text.startswith("sha256//"):
        return frozenset([_pin_of_key_file(_read_file("--pinnedpubkey", text), text)])
    found = text.split(";")
    for pin in found:
        if not re.fullmatch(r"sha256//[A-Za-z0-9+/]{43}=", pin):
            raise SettingsError(
                f"--pinnedpubkey {pin!r} is not a pin; write sha256// and the 44 characters of its base64"
            )
    return frozenset(found)


def pin_of(der: bytes) -> str:
    """The pin of a certificate's public key (RFC 7469, section 2.4); `der` is the certificate in DER form.

    Nothing but the key's place is looked at: OpenSSL, which has checked that the peer has this key, takes certificates
    that the cryptography library does not. Raises ValueError if the key is not where RFC 5280, section 4.1, has it.
    """
    # Certificate and TBSCertificate; the version, which may be missing; then serial number, signature algorithm,
    # issuer, validity and subject. The key follows.
    _, certificate, _ = _der_element(der, 0x30)
    _, fields, _ = _der_element(certificate, 0x30)
    if fields[:1] == b"\xa0":
        fields = _der_element(fields, 0xA0)[2]
    for tag in (0x02, 0x30, 0x30, 0x30, 0x30):
        fields = _der_element(fields, tag)[2]
    return pin_of_key(_der_element(fields, 0x30)[0])


def _der_element(data: bytes, tag: int) -> tuple[bytes, bytes, bytes]:
    """The first element of `data`, its content, and what follows it. It must have this tag, and a length in the one
    form that DER has for it (X.690, sections 8.1.3 and 10.1). Raises ValueError."""
    header, size = 2, data[1] if len(data) > 1 else 0x80
    if size & 0x80:
        digits = data[2 : 2 + (size & 0x7F)]
        header, size = 2 + len(digits), int.from_bytes(digits, "big")
        if size < 0x80 or not digits[0]:
            raise ValueError("an element's length is not in DER form")
    if data[0] != tag or len(data) < header + size:
        raise ValueError("an element is missing")
    end = header + size
    return data[:end], data[header:end], data[end:]


def _pin_of_key_file(data: bytes, path: str) -> str:
    from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

    try:
        return _pin_of_key((load_pem_public_key if data.startswith(b"-----BEGIN ") else load_der_public_key)(data))
    except ValueError as exc:
        raise SettingsError(
            f"--pinnedpubkey {path}: it has no public key in PEM or DER form; see 'openssl x509 -pubkey'"
        ) from exc


def _pin_of_key(key: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return pin_of_key(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def pin_of_key(spki: bytes) -> str:
    """The pin of a public key in DER form (SubjectPublicKeyInfo)."""
    return "sha256//" + base64.b64encode(hashlib.sha256(spki).digest()).decode()


def _tunnel_context(context: ssl.SSLContext) -> ssl.SSLContext:
    """Set what both ends of a tunnel have in common; return the context."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load_certificate(context: ssl.SSLContext, certfile: str, keyfile: str) -> None:
    """Load the certificate and key that this side shows. Raises SettingsError."""

    def no_password() -> str:
        raise SettingsError(f"--keyfile {keyfile} is encrypted; decrypt it first ('openssl pkey')")

    for option, path in (("--keyfile", keyfile), ("--certfile", certfile)):
        _read_file(option, path)
    try:
        context.load_cert_chain(to_read(certfile), to_read(keyfile), password=no_password)
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"--keyfile {keyfile} is not the key of --certfile {certfile}") from exc
        if exc.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            raise SettingsError(
                f"--certfile {certfile} is too weak; make one with a key of 2,048 bits RSA or 256 bits EC, and SHA-256"
            ) from exc
        raise SettingsError(
            f"--keyfile {keyfile}, --certfile {certfile}: they are not a key and a certificate in PEM form"
            f"{_what_is_missing(certfile, keyfile)}"
        ) from exc


def _what_is_missing(certfile: str, keyfile: str) -> str:
    """Which of the two files is the wrong one: the end of a sentence, empty if the beginnings of PEM are there."""
    found = ""
    for path, what, mark in ((certfile, "certificate", b"CERTIFICATE-----"), (keyfile, "private key", _KEY_MARK)):
        data = _read_file("", path)
        if mark not in data:
            # The first byte of DER and of PKCS #12: a sequence (X.690, section 8.9).
            hint = ", it is in DER or PKCS #12 form: convert it by openssl" if data[:1] == b"\x30" else ""
            found += f"; {path} has no {what}{hint}"
    return found


def _load_authorities(context: ssl.SSLContext, option: str, path: str) -> None:
    """Trust the authorities in a PEM file, or in the files of a directory. Raises SettingsError."""
    real = to_read(path)
    if not os.path.isdir(real):
        _read_file(option, path)
        try:
            context.load_verify_locations(real)
        except ssl.SSLError as exc:
            raise SettingsError(f"cannot use {option} {path}: it has no certificate in PEM form") from exc
        return
    # OpenSSL finds files that are named by a hash (c_rehash). Other files we load ourselves, by their suffix.
    context.load_verify_locations(capath=real)
    try:
        files = sorted(Path(real).iterdir())
    except OSError as exc:
        raise SettingsError(f"cannot read {option} {path}: {exc.strerror}") from exc
    for file in files:
        if file.suffix in _SUFFIXES or re.fullmatch(r"[0-9a-f]{8}\.\d+", file.name):
            _load_authorities(context, option, str(file))
    if not context.get_ca_certs():
        raise SettingsError(f"cannot use {option} {path}: the directory has no file named *.pem, *.crt or *.cer")


def _read_file(option: str, path: str) -> bytes:
    try:
        return read_file(path, FILE_MAX)
    except OSError as exc:
        raise SettingsError(f"cannot read {option} {path}: {exc.strerror}") from exc
