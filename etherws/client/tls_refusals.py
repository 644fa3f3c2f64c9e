"""What an error of TLS means, and what to try: alerts of the server, ports without TLS, certificates.

Reads facts from a certificate that did not verify (access/certificate_facts.py); they only go into the error's text.
Read next: attempt.py, the caller; refusals.py, the same for HTTP.
"""

from __future__ import annotations

import datetime
import ssl

from etherws.access.certificate_facts import Facts, facts_of
from etherws.errors import ConnectError, NotAdmitted, some_of

#: What the server's TLS alerts mean (RFC 8446, section 6.2), by OpenSSL's names.
_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate from this client; give --certfile and --keyfile",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority that signed --certfile",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept --certfile",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept --certfile",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "--certfile is of a kind that it does not accept, such as for servers only",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "--certfile has expired; renew it",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "--certfile was revoked; get a new one",
    "TLSV1_ALERT_ACCESS_DENIED": "it does not accept --certfile",
    "TLSV1_ALERT_DECRYPT_ERROR": "it does not accept --certfile",
}

#: Alerts and errors when the two sides have no TLS version in common.
_NO_COMMON_VERSION = ("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE")
_NOTHING_IN_COMMON = "it has no TLS 1.2 or later, or no cipher in common with this client; update its TLS"
_HANDSHAKE_FAILURE = "SSLV3_ALERT_HANDSHAKE_FAILURE"

#: Errors when what the other side sent is not TLS.
_NOT_TLS = (
    *("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST"),
    *("PACKET_LENGTH_TOO_LONG", "BAD_RECORD_TYPE", "UNEXPECTED_MESSAGE"),
)

#: Alerts of a server that has no certificate for the name. The second is what Go's TLS sends (Caddy, Traefik).
_NO_SUCH_NAME = ("TLSV1_UNRECOGNIZED_NAME", "TLSV1_ALERT_INTERNAL_ERROR")

#: Not every Python has a name for this alert (RFC 7301, section 3.2); OpenSSL's words have it.
_NO_ALPN = "no application protocol"

#: X509_V_ERR_* of OpenSSL's include/openssl/x509_vfy.h.
_NOT_YET_VALID, _EXPIRED, _SELF_SIGNED = 9, 10, 18
_NO_ISSUER = (2, 19, 20, 21)
_WRONG_PURPOSE, _OTHER_NAME = 26, (62, 64)
_TOO_WEAK = (66, 67, 68)

#: Names of a certificate that are shown.
_NAMES_MAX = 5


def tls_error(exc: ssl.SSLError, name: str, *, cipher_agreed: bool) -> ConnectError:
    """The error that explains what went wrong with TLS. `name` is the server's, which it was asked for;
    `cipher_agreed` is whether the two sides have a cipher."""
    reason = exc.reason or str(exc)
    if reason == _HANDSHAKE_FAILURE:
        # TLS 1.2 has this one alert both for a missing certificate and for no common version or cipher.
        reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED" if cipher_agreed else _NO_COMMON_VERSION[0]
    if reason in _ALERTS:
        return NotAdmitted(f"TLS was refused: {_ALERTS[reason]}")
    if reason in _NO_COMMON_VERSION:
        return ConnectError(f"TLS failed: {_NOTHING_IN_COMMON}")
    hint = "does it speak wss:// there?"
    if reason in _NOT_TLS:
        hint = "this port speaks no TLS: use ws://, or another port"
    elif reason in _NO_SUCH_NAME:
        hint = f"does it have a certificate for the name {name}? see --sni"
    elif _NO_ALPN in reason.lower().replace("_", " "):
        hint = "it does not offer HTTP/1.1 there, which a WebSocket needs"
    return ConnectError(f"TLS failed ({reason}); {hint}")


def certificate_error(
    exc: ssl.SSLCertVerificationError, chain: list[bytes], now: datetime.datetime | None = None
) -> ConnectError:
    """The error for a server's certificate that does not verify. `chain` is what the server showed, in DER form, its
    own first; empty if that is not known. `now` is the time, of this machine if it is None."""
    facts = [found for found in map(facts_of, chain) if found]
    hint = _certificate_hint(exc.verify_code, facts, now or datetime.datetime.now(datetime.timezone.utc))
    kind = f"its certificate does not verify: {exc.verify_message.rstrip('.')}"
    return ConnectError(f"{kind}{hint and '; ' + hint}", kind=kind)


def _certificate_hint(code: int, chain: list[Facts], now: datetime.datetime) -> str:
    own = chain[0] if chain else None
    if code in _OTHER_NAME:
        names = some_of(own.names, _NAMES_MAX) if own else ""
        has = f"it is for {names}; " if names else "it has no names at all; " if own else ""
        return f"{has}connect by a name that it has, or verify another one by --sni"
    if code == _SELF_SIGNED:
        pin = f" {own.pin}" if own else ""
        return (
            "it signed itself: copy it from the server and name it by --cacert; or compare its key with the server's,"
            f" then give --insecure --pinnedpubkey{pin}"
        )
    if code in _NO_ISSUER:
        issuer = f" {chain[-1].issuer!r}" if chain else ""
        return (
            f"this machine does not know the issuer{issuer}: name its certificate by --cacert, if you trust it; or does"
            " the server's --certfile lack the chain?"
        )
    clock = f"or this machine's clock is wrong: it says {_time(now)}"
    if code == _EXPIRED:
        ends = min((each.ends for each in chain), default=None)
        return f"{f'it ended at {_time(ends)}' if ends else 'it has ended'}; renew it on the server, {clock}"
    if code == _NOT_YET_VALID:
        begins = max((each.begins for each in chain), default=None)
        return f"{f'it begins at {_time(begins)}' if begins else 'it begins later'}, {clock}"
    if code == _WRONG_PURPOSE:
        return "it is not for servers; give the server one that is (extended key usage serverAuth)"
    if code in _TOO_WEAK:
        return "give the server one with a key of 2,048 bits RSA or 256 bits EC, and SHA-256"
    return "see --cacert"


def _time(value: datetime.datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M} UTC"
