"""What a certificate says of itself, for an error: read by name, printable, and nothing for what cannot be read."""

from __future__ import annotations

import ssl
from pathlib import Path

from etherws.access.certificate_facts import facts_of
from tests.lab.pki import NOW, Authority, Certificate, pin_of, rewritten


def der_of(pair: Certificate) -> bytes:
    """The certificate in DER form."""
    return ssl.PEM_cert_to_DER_cert(pair.cert.read_text())


def test_names_issuer_dates_and_pin_are_read(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "An authority")
    pair = authority.issue(("b.example", "*.a.example", "192.0.2.1", "2001:db8::1", "me@a.example"), days=(-2, 5))
    found = facts_of(der_of(pair))
    assert found
    # A client compares neither mail addresses nor the common name.
    assert found.names == ("b.example", "*.a.example", "192.0.2.1", "2001:db8::1")
    assert found.issuer == "An authority"
    assert (found.ends - found.begins).days == 7
    assert found.begins < NOW < found.ends
    assert found.pin == pin_of(pair)


def test_a_certificate_may_have_no_names_and_an_issuer_without_a_common_name(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue((), common="", signed=False)
    found = facts_of(der_of(pair))
    assert found
    assert (found.names, found.issuer) == ((), "O=tests")


def test_texts_of_a_stranger_are_made_printable(tmp_path: Path) -> None:
    found = facts_of(der_of(Authority(tmp_path, "a\x1b[2J\nb").issue(("x\x07y.example",))))
    assert found
    assert (found.issuer, found.names) == ("a?[2J?b", ("x?y.example",))


def test_what_cannot_be_read_has_no_facts(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue()
    assert facts_of(b"") is None
    assert facts_of(der_of(pair)[:-40]) is None
    assert facts_of(der_of(rewritten(pair, b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05"))) is None
