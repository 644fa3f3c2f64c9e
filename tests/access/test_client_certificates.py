"""A client's certificate after the handshake: its name, and whether it holds."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from etherws.access.certificates import server_context
from etherws.access.client_certificates import Authorities, ClientCertificate
from etherws.errors import SettingsError
from etherws.reloadable import Reloadable
from tests.lab.pki import Authority, Certificate


class Fixed:
    """A context that never changes."""

    def get(self) -> object:
        """Not one of ours: it has no authorities."""
        return object()


def named(subject: Mapping[str, Any]) -> str | None:
    """The identity in a certificate of this form."""
    return ClientCertificate(subject, [], Fixed()).identity()


def der(pair: Certificate) -> bytes:
    """The certificate, in DER form."""
    return ssl.PEM_cert_to_DER_cert(pair.cert.read_text())


def test_a_certificate_that_names_nobody_has_no_identity() -> None:
    assert named({}) is None
    address_only = {"subjectAltName": (("IP Address", "192.0.2.1"),), "subject": ((("organizationName", "x"),),)}
    assert named(address_only) is None
    assert named({"subject": ((("commonName", "ca"),), (("commonName", "alice"),))}) == "alice"


def test_the_first_usable_name_is_the_identity() -> None:
    names = (("IP Address", "192.0.2.1"), ("DNS", ""), ("email", "alice@example.org"), ("DNS", "example.org"))
    assert named({"subjectAltName": names, "subject": ((("commonName", "x"),),)}) == "alice@example.org"


def test_a_certificate_is_verified_again_by_the_files_as_they_are_now(authority: Authority, tmp_path: Path) -> None:
    server, alice, bob = authority.issue(), authority.issue(("alice",)), authority.issue(("bob",))
    file = tmp_path / "clients.pem"
    file.write_bytes(authority.cert.read_bytes())
    contexts = Reloadable(lambda: server_context(str(server.cert), str(server.key), str(file)), [str(file)])
    both = [ClientCertificate({}, [der(pair)], contexts) for pair in (alice, bob)]
    assert [each.problem() for each in both] == [None, None]
    file.write_bytes(authority.cert.read_bytes() + authority.revoke(alice))
    assert [each.problem() for each in both] == ["certificate revoked", None]
    file.write_bytes(Authority(tmp_path, "another CA").cert.read_bytes())
    assert [each.problem() for each in both] == ["unable to get local issuer certificate"] * 2
    # A broken file changes nothing.
    file.write_bytes(authority.cert.read_bytes())
    assert [each.problem() for each in both] == [None, None]
    file.write_bytes(b"no PEM")
    assert [each.problem() for each in both] == [None, None]


def test_an_expired_certificate_does_not_hold(authority: Authority) -> None:
    authorities = Authorities(str(authority.cert), revocation=False)
    assert authorities.problem([der(authority.issue(days=(-9, -1)))]) == "certificate has expired"
    assert "not yet valid" in str(authorities.problem([der(authority.issue(days=(1, 9)))]))
    assert authorities.problem([]) == "no certificate was shown"


def test_a_certificate_says_when_it_ends() -> None:
    subject = {"notAfter": "Jan  1 00:00:10 1970 GMT"}
    assert ClientCertificate(subject, [], Fixed()).ends() == 11.0
    assert ClientCertificate(subject, [], Fixed()).problem() is None


def test_a_file_without_certificates_is_named(tmp_path: Path) -> None:
    file = tmp_path / "clients.pem"
    file.write_text("no PEM")
    with pytest.raises(SettingsError, match=f"cannot use --client-ca {file}"):
        Authorities(str(file), revocation=False)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_of_tls_is_resumed_by_a_ticket(authority: Authority, version: ssl.TLSVersion) -> None:
    pair, alice = authority.issue(), authority.issue(("alice",))
    context = server_context(str(pair.cert), str(pair.key), str(authority.cert))
    there = ssl.create_default_context(cafile=str(authority.cert))
    there.load_cert_chain(alice.cert, alice.key)
    there.minimum_version = there.maximum_version = version
    session, resumed = None, []
    for _ in range(2):
        one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = there.wrap_bio(one, other, server_hostname="localhost", session=session)
        server = context.wrap_bio(other, one, server_side=True)
        for end in (client, server) * 3:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
        server.write(b"x")
        assert client.read(1) == b"x"
        session = client.session
        resumed.append(server.session_reused)
    assert resumed == [False, False]
