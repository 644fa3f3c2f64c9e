"""A client's certificate after the TLS handshake: whose it is, and whether it still holds.

TLS verifies a certificate when a session of TLS begins. It does not do so again when the session is resumed, nor while
a tunnel runs. Authorities can verify the same certificate again: by today's date, authorities and list of revoked
certificates. No sockets and no event loop. Read next: certificates.py, which makes the contexts of TLS.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from etherws.errors import SettingsError
from etherws.file_names import to_read


class Authorities:
    """The authorities of --client-ca, with the lists of revoked certificates in the same file."""

    def __init__(self, path: str, *, revocation: bool) -> None:
        """`revocation`: the file has a list of revoked certificates. Raises SettingsError, which names the file."""
        # pyOpenSSL, because Python's ssl verifies in a handshake only. To import it takes 0.1 s: servers without
        # client certificates need not wait for it.
        from OpenSSL import crypto

        self._store = crypto.X509Store()
        try:
            self._store.load_locations(to_read(path))
        except crypto.Error as exc:
            raise SettingsError(f"cannot use --client-ca {path}: it has no certificate in PEM form") from exc
        if revocation:
            self._store.set_flags(crypto.X509StoreFlags.CRL_CHECK)

    def problem(self, chain: Sequence[bytes]) -> str | None:
        """What is wrong with a certificate, in OpenSSL's words; None if it holds now. `chain` has the certificate and
        those that the client showed with it, in DER form."""
        from OpenSSL import crypto

        if not chain:
            return "no certificate was shown"
        leaf, *others = (crypto.load_certificate(crypto.FILETYPE_ASN1, der) for der in chain)
        try:
            crypto.X509StoreContext(self._store, leaf, others).verify_certificate()
        except crypto.X509StoreContextError as exc:
            return str(exc)
        return None


class _Contexts(Protocol):
    """reloadable.Reloadable of a server's TLS context."""

    def get(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class ClientCertificate:
    """The certificate that a client showed, verified by the handshake.

    `subject` is in the form of ssl.SSLSocket.getpeercert(), `chain` as for Authorities.problem(). `contexts` gives the
    server's present TLS context.
    """

    subject: Mapping[str, Any]
    chain: Sequence[bytes]
    contexts: _Contexts

    def identity(self) -> str | None:
        """The client's name: the first DNS name, mail address or URI of the SAN, else the CN. None if it has none."""
        for kind, name in self.subject.get("subjectAltName", ()):
            if kind in ("DNS", "email", "URI") and name:
                return str(name)
        parts = self.subject.get("subject", ())
        names = [value for part in parts for key, value in part if key == "commonName" and value]
        # The most specific name comes last (X.501).
        return str(names[-1]) if names else None

    def ends(self) -> float:
        """From when on problem() finds it expired, in seconds since 1970: the last second counts (RFC 5280, section
        4.1.2.5)."""
        return float(ssl.cert_time_to_seconds(self.subject["notAfter"]) + 1)

    def problem(self) -> str | None:
        """Why the certificate holds no longer; None if it does. It takes 0.2 ms."""
        authorities: Authorities | None = getattr(self.contexts.get(), "authorities", None)
        return authorities.problem(self.chain) if authorities else None
