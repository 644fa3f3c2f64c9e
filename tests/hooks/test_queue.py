"""Which programs run, in which order, and how many at once: by a function that records them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from etherws.errors import SettingsError
from etherws.hooks import queue
from etherws.hooks.facts import CHANGE, CONNECTED, DOWN, LEFT, LOST, UP, Facts
from etherws.hooks.program import TIMEOUT
from etherws.hooks.queue import AT_ONCE, Hooks, Run
from etherws.tap_settings import TapSettings


class Recorder:
    """Runs programs that end when they are told."""

    def __init__(self, settings: TapSettings | None = None) -> None:
        self.ran: list[str] = []
        self.go = Event()
        self.limits: list[float] = []
        self.hooks = Hooks(settings or TapSettings(), self._run)

    def _run(self, run: Run, until: Callable[[], float]) -> None:
        self.ran.append(f"{run.facts.device} {run.hook} {run.reason}")
        self.go.wait()
        self.limits.append(until())

    def add(self, device: str, hook: str, reason: str = CONNECTED, own: str | None = "/x") -> None:
        self.hooks.add(hook, reason, Facts("server", device), own)


def test_runs_of_one_interface_are_one_after_the_other_and_useless_ones_are_left_out() -> None:
    recorder = Recorder()
    recorder.add("a", UP)
    gevent.sleep(0)
    assert recorder.ran == ["a up connected"]
    for reason in (LOST, CONNECTED, LOST):
        recorder.add("a", CHANGE, reason)
    recorder.add("a", DOWN, LEFT)
    # The next client of the interface comes and goes before its time.
    recorder.add("a", UP)
    recorder.add("a", CHANGE, LOST)
    recorder.add("a", DOWN, LEFT)
    recorder.add("a", UP)
    recorder.add("b", UP, own=None)
    recorder.add("b", CHANGE, own="")
    recorder.go.set()
    recorder.hooks.finish()
    assert recorder.ran == ["a up connected", "a down left", "a up connected"]
    assert math.inf > recorder.limits[-1] > recorder.limits[0] - TIMEOUT
    assert not recorder.hooks._waiting
    assert not recorder.hooks._working


def test_few_run_at_once_and_what_has_not_begun_at_the_end_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "LAST", 0.0)
    recorder = Recorder()
    for number in range(100):
        recorder.add(f"e{number}", UP)
        recorder.add(f"e{number}", CHANGE, LOST)
    gevent.sleep(0)
    assert len(recorder.ran) == AT_ONCE
    gevent.spawn_later(0, recorder.go.set)
    recorder.hooks.finish()
    assert len(recorder.ran) == AT_ONCE
    assert not recorder.hooks._working


def test_an_end_before_its_begin_is_taken_out_also_when_the_worker_waits_for_a_slot() -> None:
    recorder = Recorder()
    for number in range(AT_ONCE + 1):
        recorder.add(f"e{number}", UP)
    gevent.sleep(0)
    recorder.add(f"e{AT_ONCE}", DOWN)
    recorder.go.set()
    recorder.hooks.finish()
    assert len(recorder.ran) == AT_ONCE


def test_programs_of_the_settings_are_tried_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "hook"
    with pytest.raises(SettingsError, match=r"--down .*hook: No such file"):
        Hooks(TapSettings(down=str(path)))
    path.write_text("#!/bin/sh\necho $ETHERWS_DEVICE $ETHERWS_HOOK $ETHERWS_REASON >&2\n")
    path.chmod(0o755)
    hooks = Hooks(TapSettings(change=str(path), hook_net_admin=True))
    hooks.add(UP, CONNECTED, Facts("client", "lan0"))
    hooks.add(CHANGE, LOST, Facts("client", "lan0"))
    with caplog.at_level("INFO"):
        hooks.finish()
    assert "--change (lost) for lan0: lan0 change lost" in caplog.text
