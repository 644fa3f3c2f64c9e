"""What a refusal means, and what to try: an HTTP answer that is no 101, and an error of TLS.

The connection is not looked at here, only what came by it. Read next: attempt.py, the caller; http_answer.py, which
reads an answer.
"""

from __future__ import annotations

import re
import ssl

from etherws.client.http_answer import HttpAnswer
from etherws.errors import ConnectError, NotAdmitted, printable

#: Seconds: the longest wait that a server can ask for with Retry-After (RFC 9110, section 10.2.3).
RETRY_AFTER_MAX = 300

#: What the user can check after an answer with this status.
_HINTS = {
    400: "does a proxy between drop headers, or speak HTTP/1.0? see docs/reverse-proxies.rst",
    404: "is the path right? a proxy between may change it",
    426: "does a proxy between drop the Upgrade header? see docs/reverse-proxies.rst",
    429: "too many wrong passwords came from this address; wait some minutes",
    500: "the server's log has the reason",
    502: "a proxy answers, but cannot reach etherws behind it; the proxy's log has the reason",
    503: "it has no free port, or is stopping; the server's log has the reason",
    504: "a proxy answers, but got no answer from etherws behind it in time",
}

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


def tls_error(exc: ssl.SSLError, *, cipher_agreed: bool) -> ConnectError:
    """The error that explains what went wrong with TLS. `cipher_agreed` is whether the two sides have a cipher."""
    reason = exc.reason or str(exc)
    if reason == _HANDSHAKE_FAILURE:
        # TLS 1.2 has this one alert both for a missing certificate and for no common version or cipher.
        reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED" if cipher_agreed else _NO_COMMON_VERSION[0]
    if reason in _ALERTS:
        return NotAdmitted(f"TLS was refused: {_ALERTS[reason]}")
    if reason in _NO_COMMON_VERSION:
        return ConnectError(f"TLS failed: {_NOTHING_IN_COMMON}")
    return ConnectError(f"TLS failed ({reason}); does it speak wss:// there?")


def refusal(answer: HttpAnswer, status: int, authorized: bool) -> ConnectError:
    """The error for an answer with another status than 101. `authorized` is whether we sent credentials."""
    text = f"answered {answer.status_text}"
    if status == 401:
        if authorized:
            return NotAdmitted(f"{text}; it does not accept this user and password, or this token")
        schemes = {value.split()[0].lower() for value in answer.values("WWW-Authenticate") if value}
        options = {"basic": "a user and password (--user)", "bearer": "a token (--token-file)"}
        named = " or ".join(options[scheme] for scheme in sorted(schemes & options.keys()))
        return NotAdmitted(f"{text}; it asks for {named or 'credentials of a kind that etherws does not have'}")
    if status == 403:
        return NotAdmitted(f"{text}; it does not let this client in")
    if 300 <= status < 400:
        target = printable("".join(answer.values("Location")[:1]))
        return ConnectError(f"{text} to {target}; etherws follows no redirects, name that URI")
    error = ConnectError(f"{text}; {_HINTS[status]}" if status in _HINTS else text)
    if status in (429, 503):
        seconds = "".join(answer.values("Retry-After")[:1])
        error.wait = float(min(int(seconds), RETRY_AFTER_MAX)) if re.fullmatch("[0-9]{1,9}", seconds) else 0.0
    return error
