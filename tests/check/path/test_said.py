"""Errors of the client's as findings."""

from __future__ import annotations

import pytest

from etherws.check.findings import Finding, Verdict
from etherws.check.path.said import failed, parts
from etherws.errors import ConnectError


@pytest.mark.parametrize(
    ("text", "happened", "hint"),
    [
        ("Connection refused; is it running there?", "Connection refused", "is it running there?"),
        ("answered 404; is the path right?; it says: a; b", "answered 404; it says: a; b", "is the path right?"),
        ("answered 400; it says: no", "answered 400; it says: no", ""),
        ("no answer", "no answer", ""),
    ],
)
def test_what_has_happened_and_what_to_do_are_apart(text: str, happened: str, hint: str) -> None:
    assert parts(text) == (happened, hint)


def test_a_failure() -> None:
    error = ConnectError("no route; is it up?")
    assert failed("tcp", error) == Finding("tcp", "no route", Verdict.FAILED, "is it up?")
    given = failed("tcp", error, before="at a: ", hint="look", verdict=Verdict.WARNING, data={"a": 1})
    assert given == Finding("tcp", "at a: no route", Verdict.WARNING, "look", {"a": 1})
