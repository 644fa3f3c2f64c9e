"""What tests run on: a test fails, and does not hang, where a process or the other frames do not end."""

from __future__ import annotations

import contextlib
import itertools
import os
from types import SimpleNamespace

import pytest

from tests.lab import hosts
from tests.lab.hosts import Host, Process, until


def test_a_test_fails_whose_process_leaves_another_that_keeps_the_output_open() -> None:
    reading, writing = os.pipe()
    with open(writing, "wb"), open(reading, "rb"):
        process = Process(["sh", "-c", f"echo begun; cat /dev/fd/{reading} &"], pass_fds=[reading])
        until(lambda: not process.running, "the shell to end")
        with pytest.raises(pytest.fail.Exception, match="keeps its output open, which said: begun"):
            process.ends(0.01)
    assert process.ends() == 0


def test_a_test_fails_that_waits_for_a_frame_among_others(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with host.namespace.inside(), contextlib.closing(hosts.Frames("lo")) as frames:
        clock = SimpleNamespace(monotonic=itertools.count(0, hosts.PATIENCE / 3).__next__)
        monkeypatch.setattr(hosts, "time", clock)
        for _ in range(9):
            frames.send(bytes(60))
        with pytest.raises(TimeoutError, match="no frame of the tests' own"):
            frames.receive()
