"""What the doctor says of the opening handshake's agreement."""

from __future__ import annotations

import pytest

from etherws.check.agreed import OFFER, OFFER_IDLE, agreed
from etherws.check.findings import Finding, Verdict
from etherws.client.upgrade import Agreement
from etherws.features import CHECK, IDLE, check_of
from etherws.tunnel.wire import Version1, Version2


def findings(agreement: Agreement, mtu: int | None = None, newest: int = 2) -> dict[str, Finding]:
    return {finding.topic: finding for finding in agreed(agreement, mtu, newest=newest)}


def test_version_2_is_all_right() -> None:
    found = findings(Agreement(Version2(), 1500, check=CHECK), 1500)
    assert [(each.topic, each.verdict) for each in found.values()] == [("wire", Verdict.OK), ("MTU", Verdict.OK)]
    assert found["wire"].data == {"version": 2, "offered": 2, "doubt": None}


@pytest.mark.parametrize(
    ("agreement", "newest", "verdict", "hint"),
    [
        (Agreement(Version1(), check=CHECK), 1, Verdict.NOTE, "leave out --wire 1"),
        (
            Agreement(Version1(), check=CHECK),
            2,
            Verdict.WARNING,
            "start the server without --wire 1; or let the proxies",
        ),
        (Agreement(Version1()), 2, Verdict.WARNING, "update the server, or start it"),
        (Agreement(Version1(), doubt="a proxy removed it"), 2, Verdict.WARNING, "let the proxies on the way pass"),
    ],
)
def test_version_1_costs_and_has_a_cause(agreement: Agreement, newest: int, verdict: Verdict, hint: str) -> None:
    found = findings(agreement, newest=newest)["wire"]
    assert found.verdict is verdict
    assert "version 1" in found.found
    assert "no super-frames" in found.found
    assert agreement.doubt in found.found
    assert found.hint.startswith(hint)


def test_a_server_that_does_not_know_checks_measures_nothing() -> None:
    found = findings(Agreement(Version2()))["measuring"]
    assert (found.verdict, found.data) == (Verdict.NOTE, {"check": None})


@pytest.mark.parametrize(
    ("ours", "verdict", "words"),
    [
        (1500, Verdict.OK, "1500 bytes at both ends"),
        (None, Verdict.OK, "1500 bytes at the server; this end has no interface yet"),
        (9000, Verdict.WARNING, "9000 bytes here, 1500 at the server"),
    ],
)
def test_mtus_are_compared(ours: int | None, verdict: Verdict, words: str) -> None:
    found = findings(Agreement(Version2(), 1500, check=CHECK), ours)["MTU"]
    assert found.verdict is verdict
    assert found.found.startswith(words)
    assert found.data == {"server_bytes": 1500, "bytes": ours}
    assert found.hint == ("give both the lower one: --mtu 1500" if ours == 9000 else "")


def test_offers() -> None:
    assert (check_of(OFFER), check_of(OFFER_IDLE)) == (CHECK, IDLE)
