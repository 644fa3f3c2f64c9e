"""A server's own certificate."""

from __future__ import annotations

from pathlib import Path

import pytest

from etherws.access.certificate_facts import facts_of_file, pin_of_private_key
from etherws.access.certificates import server_context
from etherws.access.new_certificate import new_certificate


@pytest.mark.parametrize("host", ["host.example", "192.0.2.1", "2001:db8::1", "x" * 60 + ".example.example"])
def test_certificate_and_key_belong_together(host: str, tmp_path: Path) -> None:
    certificate, key = new_certificate(host)
    (tmp_path / "crt").write_bytes(certificate)
    (tmp_path / "key").write_bytes(key)
    server_context(str(tmp_path / "crt"), str(tmp_path / "key"))
    facts = facts_of_file(str(tmp_path / "crt"))
    assert facts
    assert facts.names == (host,)
    assert facts.pin == pin_of_private_key(key)
    assert facts.authority == facts.whole_subject
    assert 3600 < (facts.ends - facts.begins).days < 3700


def test_there_are_no_facts_of_what_is_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("-----BEGIN CERTIFICATE-----\nx")
    assert facts_of_file(str(tmp_path / "x")) is None
    assert facts_of_file(str(tmp_path / "gone")) is None
