"""The sink of a peer that rules apply to: when it asks for them, and when it costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from etherws.errors import DeviceError
from etherws.tunnel.filtered_sink import FilteredSink, SharedFilter
from etherws.tunnel.wire import VNET_BYTES
from tests.lab.frames import SOURCE, frame

PACKET = memoryview(bytes(VNET_BYTES) + frame(60))


class FakeTap:
    def __init__(self) -> None:
        self.written: list[Any] = []

    def write_batch(self, packets: Sequence[Any]) -> None:
        self.written += packets


class FakeFilter:
    def __init__(self) -> None:
        self.sources: list[bytes] = []
        self.hold: Callable[[], None] = lambda: None
        self.error: DeviceError | None = None

    def arm(self, source: bytes, hold: Callable[[], None]) -> None:
        if self.error:
            raise self.error
        self.sources.append(source)
        self.hold = hold


def test_the_rules_are_asked_for_once_and_again_when_they_were_taken_away() -> None:
    tap, rules = FakeTap(), FakeFilter()
    sink = FilteredSink(cast(Any, tap), rules)
    # Nothing to ask for the end of what never began.
    sink._hold()
    for _ in range(3):
        sink.write_batch([PACKET])
    assert (rules.sources, tap.written) == ([SOURCE], [PACKET] * 3)
    assert sink.write_batch == tap.write_batch
    rules.hold()
    rules.error = DeviceError("no rules")
    for _ in range(2):
        with pytest.raises(DeviceError):
            sink.write_batch([PACKET])
    assert len(tap.written) == 3
    rules.error = None
    sink.write_batch([])
    assert (rules.sources, sink.write_batch) == ([SOURCE, b""], tap.write_batch)


def test_all_queues_of_a_tap_hold_when_the_rules_are_taken_away() -> None:
    taps, rules = [FakeTap(), FakeTap(), FakeTap()], FakeFilter()
    shared = SharedFilter(rules)
    sinks = [FilteredSink(cast(Any, tap), shared) for tap in taps]
    for sink in sinks[:2]:
        sink.write_batch([PACKET])
    assert rules.sources == [SOURCE] * 2
    for _ in range(2):
        rules.hold()
        rules.error = DeviceError("no rules")
        for sink in sinks:
            with pytest.raises(DeviceError):
                sink.write_batch([PACKET])
        rules.error = None
        for sink, tap in zip(sinks, taps, strict=True):
            sink.write_batch([PACKET])
            assert sink.write_batch == tap.write_batch
    assert [len(tap.written) for tap in taps] == [3, 3, 2]
    # One that asks again and again is not called more than once.
    shared.arm(b"", sinks[0]._hold)
    assert len(shared._holds) == 3
