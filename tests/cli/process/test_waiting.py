"""--wait: when the start of a client is over, with which status, and how the option is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import gevent
import pytest
from click.testing import CliRunner

from etherws.cli.commands import main
from etherws.cli.number_options import Wait
from etherws.cli.process.waiting import Start, spelled_out
from etherws.errors import NOT_CONNECTED_STATUS, ConnectError, NotAdmitted


class Told(list[tuple[str, int]]):
    """What was reported."""

    def __call__(self, message: str, status: int = 0, extra: Mapping[str, object] = MappingProxyType({}), /) -> None:
        """Note it."""
        self.append((message, status))


def test_the_first_connection_ends_the_start(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    start = Start(told, math.inf)
    start.failed("cannot connect", ConnectError("x"))
    start.failed("cannot connect again", ConnectError("x"))
    assert not told
    # The user, who waits, sees the first reason at once.
    assert [record.getMessage() for record in caplog.records] == ["cannot connect"]
    start.connected("connected")
    assert told == [("connected", 0)]


def test_a_refusal_ends_the_start() -> None:
    told = Told()
    start = Start(told, math.inf)
    start.failed("refused", NotAdmitted("x"))
    start.failed("refused again", NotAdmitted("x"))
    start.connected("connected")
    assert told == [("refused", 77), ("connected", 0)]


def test_the_time_ends_the_start_and_says_the_last_reason() -> None:
    told, early, in_time = Told(), Told(), Told()
    start = Start(told, 0.001)
    start.failed("no answer", ConnectError("x"))
    Start(early, 0.001)
    Start(in_time, 0.001).connected("connected")
    gevent.sleep(0.01)
    assert told == [("not connected within 0.001 s: no answer", NOT_CONNECTED_STATUS)]
    assert early == [("not connected within 0.001 s: the first attempt to connect has no result yet", 75)]
    start.connected("connected")
    assert told[1:] == [("connected", 0)]
    assert in_time == [("connected", 0)]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("--wait ws://h/", "--wait=forever ws://h/"),
        ("--wait 30 ws://h/", "--wait 30 ws://h/"),
        ("--wait 5m", "--wait 5m"),
        ("--wait=5", "--wait=5"),
        ("--wait -4", "--wait=forever -4"),
        ("ws://h/ --wait", "ws://h/ --wait=forever"),
        ("-- --wait", "-- --wait"),
    ],
)
def test_the_time_may_be_left_out(given: str, read: str) -> None:
    assert spelled_out(given.split()) == read.split()


def test_the_times_that_one_can_wait() -> None:
    assert Wait().convert("forever", None, None) == math.inf
    assert Wait().convert("2m", None, None) == 120.0
    for given, words in {"--wait=0": "must be above zero", "--wait=soon": "'soon' is not a duration"}.items():
        done = CliRunner().invoke(main, ["client", given, "ws://h/"])
        assert (done.exit_code, words in done.output) == (2, True)
