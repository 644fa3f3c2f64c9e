"""Errors of TLS, by real handshakes in memory: each says what to try, and no two causes say the same wrong thing."""

from __future__ import annotations

import contextlib
import datetime
import ssl
from pathlib import Path
from typing import Any

import pytest

from etherws.access import certificates
from etherws.client.tls_refusals import certificate_error, tls_error
from etherws.errors import ConnectError, NotAdmitted
from etherws.settings import Trust
from tests.lab.pki import Authority, Certificate, pin_of


class Peer:
    """The other end: what it makes of the client's bytes."""

    def __init__(self, pair: Certificate | None = None, said: bytes = b"") -> None:
        """A server with this certificate; or one that says this."""
        self._said, self._in, self._out = said, ssl.MemoryBIO(), ssl.MemoryBIO()
        if pair:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pair.cert, pair.key)
            self._tls = context.wrap_bio(self._in, self._out, server_side=True)

    def answer(self, data: bytes) -> bytes:
        """The answer to these bytes."""
        if self._said:
            return self._said
        self._in.write(data)
        # It waits for more, or has written an alert.
        with contextlib.suppress(ssl.SSLError):
            self._tls.do_handshake()
        return self._out.read()


def failure(peer: Peer, name: str, trust: Trust) -> ConnectError:
    """The error of a client's handshake with this peer."""
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls: Any = certificates.client_context(trust).wrap_bio(into, out, server_hostname=name)
    for _ in range(5):
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            into.write(peer.answer(out.read()))
        except ssl.SSLCertVerificationError as exc:
            inside = tls if hasattr(tls, "get_unverified_chain") else tls._sslobj
            chain = [
                each if isinstance(each, bytes) else each.public_bytes(2) for each in inside.get_unverified_chain()
            ]
            return certificate_error(exc, chain)
        except ssl.SSLError as exc:
            return tls_error(exc, name, cipher_agreed=tls.cipher() is not None)
    raise AssertionError("the handshake succeeded")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs the servers' certificates."""
    return Authority(tmp_path_factory.mktemp("authority"), "Example Root")


@pytest.fixture(scope="module")
def trust(authority: Authority) -> Trust:
    """Trusts it."""
    return Trust(cacert=str(authority.cert))


def test_another_name_is_answered_with_those_that_the_certificate_has(authority: Authority, trust: Trust) -> None:
    names = ("a.example", "b.example", "192.0.2.1", "c.example", "d.example", "e.example", "f.example")
    for wanted, pair, words in (
        ("x.example", authority.issue(names[:2]), "it is for a.example, b.example; connect by a name that it has, or"),
        (
            "192.0.2.9",
            authority.issue(names),
            "it is for a.example, b.example, c.example, d.example, e.example and 2 more",
        ),
        ("x.example", authority.issue(()), "it has no names at all; connect by a name that it has"),
    ):
        message = str(failure(Peer(pair), wanted, trust))
        assert message.startswith("its certificate does not verify: ")
        assert "mismatch" in message
        assert words in message
        assert message.endswith("verify another one by --sni")
        assert "--cacert" not in message


def test_a_self_signed_certificate_is_answered_with_its_pin(authority: Authority, trust: Trust) -> None:
    pair = authority.issue(signed=False)
    message = str(failure(Peer(pair), "localhost", trust))
    assert "self-signed certificate; it signed itself: copy it from the server and name it by --cacert" in message
    assert message.endswith(f"give --insecure --pinnedpubkey {pin_of(pair)}")


def test_an_unknown_issuer_is_named(authority: Authority, trust: Trust, tmp_path: Path) -> None:
    message = str(failure(Peer(Authority(tmp_path, "Company Proxy CA").issue()), "localhost", trust))
    assert "this machine does not know the issuer 'Company Proxy CA': name its certificate by --cacert" in message


def test_another_certificate_of_the_same_kind_is_no_new_reason(authority: Authority, trust: Trust) -> None:
    """A server that makes its certificate anew each time does not get a line of the log each time."""
    for pairs in (
        [authority.issue(signed=False) for _ in range(2)],
        [authority.issue((name,)) for name in ("a.example", "b.example")],
    ):
        errors = [failure(Peer(pair), "localhost", trust) for pair in pairs]
        assert str(errors[0]) != str(errors[1])
        assert errors[0].kind == errors[1].kind


def test_dates_are_shown_beside_this_machines_clock(authority: Authority, trust: Trust) -> None:
    for days, words in (
        ((-9.0, -1.0), "certificate has expired; it ended at "),
        ((1.0, 9.0), "certificate is not yet valid; it begins at "),
    ):
        message = str(failure(Peer(authority.issue(days=days)), "localhost", trust))
        assert words in message
        assert (
            f"or this machine's clock is wrong: it says {datetime.datetime.now(datetime.timezone.utc):%Y-}" in message
        )


def test_a_certificate_for_clients_is_not_for_servers(authority: Authority, trust: Trust) -> None:
    message = str(failure(Peer(authority.issue(usage="client")), "localhost", trust))
    assert "it is not for servers; give the server one that is" in message


class Verification(ssl.SSLCertVerificationError):
    """An error as OpenSSL would give it."""

    def __init__(self, code: int) -> None:
        super().__init__(1, "failed")
        self.verify_code, self.verify_message = code, "words."


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (62, "words; connect by a name that it has, or verify another one by --sni"),
        (18, "then give --insecure --pinnedpubkey"),
        (20, "does not know the issuer: name its certificate"),
        (10, "it has ended; renew it on the server, or this machine's clock is wrong: it says 2030-01-02 03:04 UTC"),
        (9, "it begins later, or this machine's clock is wrong: it says 2030-01-02 03:04 UTC"),
        (66, "give the server one with a key of 2,048 bits RSA"),
        (23, "words; see --cacert"),
    ],
)
def test_a_hint_needs_no_certificate_that_can_be_read(code: int, words: str) -> None:
    now = datetime.datetime(2030, 1, 2, 3, 4, tzinfo=datetime.timezone.utc)
    for chain in ([], [b"no certificate"]):
        assert words in str(certificate_error(Verification(code), chain, now))


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"220 mail.example ESMTP\r\n", bytes(64)]
)
def test_a_port_without_tls_is_named(said: bytes, trust: Trust) -> None:
    message = str(failure(Peer(said=said), "localhost", trust))
    assert message.endswith("this port speaks no TLS: use ws://, or another port")


def alert(description: int) -> bytes:
    """A fatal alert in its record (RFC 8446, section 6)."""
    return bytes([0x15, 3, 3, 0, 2, 2, description])


@pytest.mark.parametrize(
    ("description", "words"),
    [
        (112, "TLS failed (TLSV1_UNRECOGNIZED_NAME); does it have a certificate for the name x.example? see --sni"),
        (80, "TLS failed (TLSV1_ALERT_INTERNAL_ERROR); does it have a certificate for the name x.example? see --sni"),
        (120, "it does not offer HTTP/1.1 there, which a WebSocket needs"),
        (70, "TLS failed: it has no TLS 1.2 or later, or no cipher in common with this client; update its TLS"),
        (40, "TLS failed: it has no TLS 1.2 or later, or no cipher in common with this client; update its TLS"),
        (22, "TLS failed (TLSV1_ALERT_RECORD_OVERFLOW); does it speak wss:// there?"),
    ],
)
def test_an_alert_is_explained(description: int, words: str, trust: Trust) -> None:
    message = str(failure(Peer(said=alert(description)), "x.example", trust))
    assert words in message


def test_alerts_about_our_certificate_are_refusals(trust: Trust) -> None:
    error = failure(Peer(said=alert(48)), "x.example", trust)
    assert isinstance(error, NotAdmitted)
    assert str(error) == "TLS was refused: it does not know the authority that signed --certfile"
    # TLS 1.2's alert for everything, after the cipher was chosen.
    wants = ssl.SSLError(1, "x")
    wants.reason = "SSLV3_ALERT_HANDSHAKE_FAILURE"
    assert "wants a certificate" in str(tls_error(wants, "x.example", cipher_agreed=True))
