"""The look-up of a name, as the doctor shows it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from etherws.check.findings import Finding, Verdict
from etherws.check.path import names
from etherws.errors import ConnectError


def look(monkeypatch: pytest.MonkeyPatch, found: list[str] | ConnectError, **values: Any) -> tuple[list[Finding], int]:
    """The findings, and how many addresses are returned, if the look-up gives these addresses or this error."""

    def look_up(host: str, port: int, family: int) -> list[Any]:
        if isinstance(found, ConnectError):
            raise found
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    monkeypatch.setattr(names, "look_up", look_up)
    monkeypatch.setattr(names, "in_hosts_file", lambda _: values.get("hosts", False))
    shown = []
    steps = names.names(values.get("host", "lan.example"), 443, values.get("family", 0), 1.0, "the server")
    while True:
        try:
            shown.append(next(steps))
        except StopIteration as end:
            return shown, len(end.value)


def test_addresses_and_where_they_are_from(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,), count = look(monkeypatch, ["192.0.2.1", "192.0.2.2"])
    assert (finding.verdict, count) == (Verdict.OK, 2)
    assert finding.found.startswith("the server lan.example is 192.0.2.1, 192.0.2.2, by the name server, in ")
    (finding,), _ = look(monkeypatch, ["192.0.2.1"], hosts=True)
    assert finding.verdict is Verdict.NOTE
    assert "/etc/hosts comes before DNS" in finding.hint
    (finding,), _ = look(monkeypatch, ["127.0.0.1"], host="localhost", hosts=True)
    assert finding.verdict is Verdict.OK
    (finding,), _ = look(monkeypatch, ["192.0.2.1"], host="192.0.2.1")
    assert finding.found == "the server is named by its address, 192.0.2.1"
    (finding,), _ = look(monkeypatch, ["192.0.2.1"], family=4)
    assert finding.found.endswith("(only IPv4 was asked for)")


def test_a_name_that_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,), count = look(monkeypatch, ConnectError("Name or service not known; is the name spelled right?"))
    assert (finding.verdict, finding.hint, count) == (Verdict.FAILED, "is the name spelled right?", 0)
    (finding,), _ = look(monkeypatch, ConnectError("no address; x"), hosts=True, family=6)
    assert finding.hint == "/etc/hosts has this name: is the line right?"
    assert "(only IPv6 was asked for)" in finding.found


def test_a_name_with_very_many_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    (first, second), count = look(monkeypatch, [f"10.0.{each // 250}.{each % 250}" for each in range(4000)])
    assert count == names.ADDRESSES_MAX
    assert "and 3994 more" in first.found
    assert second.found == "only the first 16 of 4000 addresses are looked at"


def test_a_slow_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 3.0])
    monkeypatch.setattr(names, "monotonic", lambda: next(times))
    (finding,), _ = look(monkeypatch, ["192.0.2.1"])
    assert finding.verdict is Verdict.WARNING
    assert "/etc/resolv.conf" in finding.hint


def test_the_file_of_names(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_bytes(b"# 192.0.2.1 commented\n192.0.2.1\tLan.example lan\n\n192.0.2.9 other # lan2\n\xff\xff x\n")
    found = [
        name
        for name in ("lan.example.", "lan", "commented", "lan2", "192.0.2.1")
        if names.in_hosts_file(name, str(file))
    ]
    assert found == ["lan.example.", "lan"]
    assert not names.in_hosts_file("lan", str(tmp_path / "missing"))


def test_a_time_has_as_many_digits_as_mean_something() -> None:
    assert [names.milliseconds(each) for each in (0.00012, 0.0034, 0.034, 1.2)] == [
        "0.1 ms",
        "3.4 ms",
        "34 ms",
        "1200 ms",
    ]
