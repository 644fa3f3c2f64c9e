"""Processes that are started: their end, their environment, and their parent's end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

import etherws
from etherws.workers.child import Child, command, end_with_parent, environment
from tests.lab.hosts import PATIENCE


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    with gevent.Timeout(PATIENCE):
        yield


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("", "it ended with status 0"),
        ("import sys; sys.exit(3)", "it ended with status 3"),
        ("import os; os.kill(os.getpid(), 9)", "it was ended by SIGKILL"),
        ("import os; os.kill(os.getpid(), 40)", "it was ended by signal 40"),
    ],
)
def test_how_it_ended(code: str, words: str) -> None:
    child = Child([sys.executable, "-c", code], ())
    assert child.end == "it has not ended"
    child.ended.wait()
    assert child.end == words
    # Its number may be another's by now.
    child.signal(signal.SIGTERM)


def test_a_stopped_one_is_killed() -> None:
    child = Child(["sleep", "1000"], ())
    child.signal(signal.SIGSTOP)
    child.kill(PATIENCE)
    assert child.ended.is_set()


def test_no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    gevent.get_hub()
    before = os.listdir("/proc/self/fd")
    child = Child(["true"], ())
    child.ended.wait()
    assert os.listdir("/proc/self/fd") == before
    monkeypatch.setattr(os, "pidfd_open", lambda _: (_ for _ in ()).throw(OSError("no pidfd")))
    with pytest.raises(OSError, match="no pidfd"):
        Child(["sleep", "1000"], ())
    assert os.listdir("/proc/self/fd") == before


def test_it_inherits_only_what_it_is_given() -> None:
    kept, other = os.pipe()
    os.set_inheritable(other, True)
    code = f"import os; os.fstat({kept});\ntry: os.fstat({other})\nexcept OSError: pass\nelse: raise SystemExit(5)"
    child = Child([sys.executable, "-c", code], (kept,))
    child.ended.wait()
    assert child.end == "it ended with status 0"
    os.close(kept)
    os.close(other)


def test_nothing_of_systemds_is_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"NOTIFY_SOCKET": "/x", "LISTEN_FDS": "3", "WATCHDOG_USEC": "1", "ETHERWS_HANDOVER": "3:x", "PATH": "/bin"}
    monkeypatch.setattr(sys, "path", ["/elsewhere"])
    assert environment(given) == {"PATH": "/bin"}
    # Started by -m in a checkout: the same checkout, wherever the process works.
    root = str(Path(etherws.__file__).parent.parent)
    monkeypatch.setattr(sys, "path", [root, "/elsewhere"])
    assert environment({"PYTHONPATH": "/more"}) == {"PYTHONPATH": f"{root}:/more"}
    assert environment({}) == {"PYTHONPATH": root}


def test_the_command() -> None:
    assert command("workers", "1", "2") == [sys.executable, "-m", "etherws.workers", "1", "2"]


def test_it_ends_with_its_parent() -> None:
    calls: list[tuple[object, ...]] = []

    def prctl(*given: object) -> int:
        calls.append(given)
        return 0

    assert end_with_parent(os.getppid(), prctl)
    assert calls == [(1, signal.SIGKILL, 0, 0, 0)]
    assert not end_with_parent(os.getpid(), lambda *given: 0)


def test_the_kernel_kills_it_when_its_parent_is_gone() -> None:
    inner = "import os, sys; from etherws.workers.child import end_with_parent; end_with_parent(os.getppid());"
    inner += "print('x', flush=True); import time; time.sleep(1000)"
    outer = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {inner!r}]).wait()"
    process = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"x\n"
    process.kill()
    # The end of the pipe is the end of the inner one.
    assert process.stdout.read() == b""
    process.communicate()
