"""TLS contexts of both ends, and what is read from a peer's certificate: whose it is, and its pin.

What a connection does with a context is tunnel/tls.py's. Both ends keep to Mozilla's intermediate profile: TLS 1.2 and
1.3, forward secrecy, authenticated ciphers; ALPN says http/1.1, since a proxy that agreed on HTTP/2 would lose the
upgrade.
"""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etherws.errors import ListenError, SettingsError
from etherws.settings import Trust

#: environ[CERTIFICATE] is the client's verified certificate, as getpeercert() gives it; set by server/http.py.
CERTIFICATE = "etherws.certificate"

#: TLS 1.2 (Mozilla's "Server Side TLS", version 5.7, intermediate), without finite-field DH, which would need
#: parameters that nobody makes. Security level 2 refuses keys of under 112 bits of strength and SHA-1 signatures.
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:@SECLEVEL=2"
)

_REVOCATIONS = b"-----BEGIN X509 CRL-----"

#: What a file of a directory of authorities is called.
_SUFFIXES = (".pem", ".crt", ".cer")


def server_context(certfile: str, keyfile: str, client_ca: str | None = None) -> ssl.SSLContext:
    """A server's context. With `client_ca`, a PEM file of authorities, each client must show a certificate of theirs;
    if there is a CRL in that file, one that is not revoked.

    Raises ListenError that names the file at fault.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    try:
        _own(context, certfile, keyfile)
        if client_ca:
            authorities = _read("--client-ca", client_ca)
            _trust(context, "--client-ca", client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
            if _REVOCATIONS in authorities:
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except SettingsError as exc:
        raise ListenError(str(exc)) from exc
    return context


def client_context(trust: Trust) -> ssl.SSLContext:
    """A client's context: verifies against `trust.cacert`, a PEM file or a directory of them, else against the system's
    store, and has its own certificate if there is one. Raises SettingsError that names the file at fault."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    if trust.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif trust.cacert:
        _trust(context, "--cacert", trust.cacert)
    else:
        context.load_default_certs()
    if trust.certfile:
        _own(context, trust.certfile, trust.keyfile or trust.certfile)
    return context


def owner(certificate: Mapping[str, Any]) -> str | None:
    """Whose the certificate is: the first DNS name, mail address or URI of its SAN, else its CN.

    `certificate` is a verified one, as ssl.SSLSocket.getpeercert() gives it. None if it names nobody.
    """
    for kind, name in certificate.get("subjectAltName", ()):
        if kind in ("DNS", "email", "URI") and name:
            return str(name)
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName" and value]
    # The most specific comes last (X.501).
    return str(names[-1]) if names else None


def pins(text: str) -> frozenset[str]:
    """The pins of ``--pinnedpubkey``: sha256//BASE64, several with ``;`` between, or the name of a PEM or DER file with
    a public key, as curl has it. Raises SettingsError."""
    if not text.startswith("sha256//"):
        return frozenset([_pin_of_key(_read("--pinnedpubkey", text), text)])
    found = text.split(";")
    for pin in found:
        if not re.fullmatch(r"sha256//[A-Za-z0-9+/]{43}=", pin):
            raise SettingsError(f"--pinnedpubkey {pin!r} is no pin; write sha256// and the 44 characters of its base64")
    return frozenset(found)


def pin(der: bytes) -> str:
    """The pin of a certificate's public key (RFC 7469, section 2.4); `der` is the certificate."""
    from cryptography import x509

    return _pin(x509.load_der_x509_certificate(der).public_key())


def _pin_of_key(data: bytes, path: str) -> str:
    from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

    try:
        return _pin((load_pem_public_key if data.startswith(b"-----BEGIN ") else load_der_public_key)(data))
    except ValueError as exc:
        raise SettingsError(
            f"--pinnedpubkey {path}: no public key in PEM or DER form in it; see 'openssl x509 -pubkey'"
        ) from exc


def _pin(key: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256//" + base64.b64encode(hashlib.sha256(spki).digest()).decode()


def _context(protocol: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _own(context: ssl.SSLContext, certfile: str, keyfile: str) -> None:
    """Give the context its own certificate and key."""

    def no_password() -> str:
        raise SettingsError(f"--keyfile {keyfile} is encrypted; decrypt it first ('openssl pkey')")

    for option, path in (("--keyfile", keyfile), ("--certfile", certfile)):
        _read(option, path)
    try:
        context.load_cert_chain(certfile, keyfile, password=no_password)
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"--keyfile {keyfile} is not the key of --certfile {certfile}") from exc
        if exc.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            raise SettingsError(
                f"--certfile {certfile} is too weak; make one with a key of 2,048 bits RSA or 256 bits EC, and SHA-256"
            ) from exc
        raise SettingsError(f"--keyfile {keyfile}, --certfile {certfile}: no PEM key and certificate") from exc


def _trust(context: ssl.SSLContext, option: str, path: str) -> None:
    """Have the context trust the authorities in a PEM file, or in the files of a directory."""
    if not Path(path).is_dir():
        _read(option, path)
        try:
            context.load_verify_locations(path)
        except ssl.SSLError as exc:
            raise SettingsError(f"cannot use {option} {path}: no certificate in PEM form in it") from exc
        return
    # By the hashes of their names, as OpenSSL wants them, and by the suffix, as people lay them there.
    context.load_verify_locations(capath=path)
    for file in sorted(Path(path).iterdir()):
        if file.suffix in _SUFFIXES or re.fullmatch(r"[0-9a-f]{8}\.\d+", file.name):
            _trust(context, option, str(file))
    if not context.get_ca_certs():
        raise SettingsError(f"cannot use {option} {path}: no file called *.pem, *.crt or *.cer in that directory")


def _read(option: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise SettingsError(f"cannot read {option} {path}: {exc.strerror}") from exc
