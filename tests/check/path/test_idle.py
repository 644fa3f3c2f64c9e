"""Silent connections, against the server's end in this process and on a clock that does not wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import gevent
import pytest

from etherws.check.findings import Verdict
from etherws.check.path import idle as module
from etherws.check.path.idle import idle
from etherws.check.path.measuring import Measuring
from etherws.errors import ConnectError, EtherwsError, SettingsError
from etherws.tunnel.connection import Connection
from tests.lab.checks import Pair, check_pair


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """Connections to servers; closed with the test."""
    with ExitStack() as stack:
        found: list[Pair] = []
        yield [*found, *(stack.enter_context(check_pair(size=64 * 1024)) for _ in range(6))]


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[Measuring, float], None]]:
    """What happens in each silence; nothing waits for its time."""
    happens: list[Callable[[Measuring, float], None]] = []
    real = Measuring.wait

    def wait(measuring: Measuring, condition: Callable[[], object], seconds: float) -> bool:
        if seconds <= module.ANSWER_SECONDS:
            return real(measuring, condition, seconds)
        for each in happens:
            each(measuring, seconds)
        return real(measuring, condition, 0.0)

    monkeypatch.setattr(Measuring, "wait", wait)
    return happens


def connect_to(pairs: list[Pair]) -> Callable[[], Connection]:
    left = iter(pairs)
    return lambda: next(left).connection


def test_a_path_on_which_silence_does_no_harm(pairs: list[Pair], silent: object) -> None:
    (found,) = idle(connect_to(pairs), 120)
    assert (found.topic, found.verdict) == ("idle", Verdict.OK)
    assert found.data == {"alive_seconds": 120, "cut_seconds": None, "closed": False}


def test_a_path_that_ends_silent_connections(
    pairs: list[Pair], silent: list[Callable[[Measuring, float], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)
    real = Measuring.wait

    def cut(measuring: Measuring, seconds: float) -> None:
        if seconds > 60:
            pair = next(pair for pair in pairs if pair.connection is measuring._connection)
            pair.session.end(EtherwsError("cut"))
            pair.ended()
            real(measuring, lambda: False, 1.0)

    silent.append(cut)
    (found,) = idle(connect_to(pairs), 120)
    assert found.data["closed"] is True
    assert found.data["cut_seconds"] is not None
    assert "closed by the peer, code 1011" in found.found


def test_a_path_that_forgets_silent_connections(
    pairs: list[Pair], silent: list[Callable[[Measuring, float], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)

    def forget(measuring: Measuring, seconds: float) -> None:
        if seconds > 50:
            monkeypatch.setattr(measuring, "probe", lambda: measuring._asked.update({99: (60, 0.0)}))

    silent.append(forget)
    (found,) = idle(connect_to(pairs), 120)
    assert (found.verdict, found.data["closed"], found.data["cut_seconds"]) == (Verdict.NOTE, False, 55)


@pytest.mark.parametrize("kind", [ConnectError, SettingsError])
def test_a_server_that_takes_no_silent_connection(kind: type[EtherwsError]) -> None:
    def refused() -> Connection:
        raise kind("answered 503")

    with gevent.Timeout(10):
        (found,) = idle(refused, 60)
    assert (found.verdict, found.found) == (Verdict.SKIPPED, "no connection could be made for it: answered 503")


def test_one_that_is_taken_is_enough(pairs: list[Pair], silent: object) -> None:
    left = iter(pairs[:1])

    def connect() -> Connection:
        for pair in left:
            return pair.connection
        raise ConnectError("answered 503")

    (found,) = idle(connect, 60)
    assert found.verdict is Verdict.OK
    assert found.data["alive_seconds"] == 20
