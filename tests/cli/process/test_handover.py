"""SIGUSR2: when a new image takes over, and that nothing is lost if it does not."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import gevent
import pytest
from gevent.event import Event

from etherws.cli.process import handover
from etherws.cli.process.handover import Handover
from etherws.cli.process.process_image import ProcessImage
from etherws.errors import DaemonError
from etherws.kernel.store import HANDOVER


class Rehearsals:
    """What stands for the rehearsals: each waits for the test."""

    def __init__(self) -> None:
        self.calls: list[tuple[Sequence[str], dict[str, str]]] = []
        self.result: Callable[[], str] = lambda: "9.9"
        self.go_on = Event()
        self.go_on.set()

    def rehearse(self, command: Sequence[str], _: str, environ: dict[str, str], descriptors: Sequence[int]) -> str:
        """Rehearse."""
        for descriptor in descriptors:
            os.fstat(descriptor)
        self.calls.append((command, environ))
        self.go_on.wait()
        return self.result()


@pytest.fixture
def rehearsals(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Rehearsals:
    """No real ones."""
    caplog.set_level("INFO", "etherws")
    found = Rehearsals()
    monkeypatch.setattr(handover, "rehearse", found.rehearse)
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "etherws", "client", "ws://a:secret@b/"])
    return found


@pytest.fixture
def kept() -> Iterator[int]:
    """A descriptor."""
    fd = os.memfd_create("kept")
    yield fd
    os.close(fd)


def made() -> tuple[Handover, ProcessImage, Event]:
    """The hand-over of a process that was started by a command."""
    image, stop = ProcessImage(["client", "ws://a:secret@b/"], {}), Event()
    image.visible = ["client", "ws://a:xxx@b/"]
    found = Handover(image, stop, background=False)
    found.started = True
    return found, image, stop


def test_a_rehearsal_comes_before_anything_else(
    rehearsals: Rehearsals, kept: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    found, image, stop = made()
    asked = list[bool]()
    image.before_rehearsal = lambda: asked.append(True)
    image.store.keep("port-7", kept)
    found.request()
    ((command, environ),) = rehearsals.calls
    assert list(command[-3:]) == ["client", "--rehearsal", "ws://a:xxx@b/"]
    assert environ[HANDOVER].startswith(f"{kept}:port-7,")
    assert "NOTIFY_SOCKET" not in environ
    assert asked == [True]
    assert (found.wanted, stop.is_set(), image.store.outlives) == (True, True, True)
    assert "handing over to version 9.9" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("error", [DaemonError("broken"), OSError("full")])
def test_if_it_fails_nothing_happens(
    rehearsals: Rehearsals, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> str:
        raise error

    rehearsals.result = fail
    found, image, stop = made()
    for _ in range(2):
        found.request()
    assert (found.wanted, stop.is_set(), image.store.outlives) == (False, False, False)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert caplog.messages[0] == f"no new image takes over, and this one goes on: {error}"


def test_one_at_a_time(rehearsals: Rehearsals, caplog: pytest.LogCaptureFixture) -> None:
    found, _, _ = made()
    found.started = False
    found.request()
    assert caplog.messages[0] == "SIGUSR2 is ignored: the start is not over yet; send it again later"
    found.started = True
    rehearsals.go_on.clear()
    first = gevent.spawn(found.request)
    gevent.sleep(0)
    found.request()
    assert caplog.messages[1:] == ["SIGUSR2 is ignored: a new image is about to take over already"]
    rehearsals.go_on.set()
    first.join()
    found.request()
    assert len(rehearsals.calls) == 1
    assert caplog.messages[-1] == "SIGUSR2 is ignored: a new image is about to take over already"


def test_a_stop_during_the_rehearsal_is_a_stop(rehearsals: Rehearsals) -> None:
    found, image, stop = made()
    rehearsals.go_on.clear()
    first = gevent.spawn(found.request)
    gevent.sleep(0)
    found.end(signal.SIGTERM)
    rehearsals.go_on.set()
    first.join()
    assert (found.wanted, stop.is_set(), image.store.outlives) == (False, True, False)


def test_a_new_image_that_cannot_be_executed_changes_nothing(
    rehearsals: Rehearsals, kept: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found, image, stop = made()
    pid_file, folder, seen = os.memfd_create("pid"), os.getcwd(), list[object]()

    def execute(_: str, command: Sequence[str], environ: dict[str, str]) -> None:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        inheritable = [os.get_inheritable(int(entry.split(":")[0])) for entry in environ[HANDOVER].split(",")]
        seen.append((command[-1], len(inheritable), all(inheritable), signal.SIGTERM in blocked))
        raise OSError(8, "Exec format error")

    monkeypatch.setattr(os, "execve", execute)
    image.store.keep("port-7", kept)
    found.request()
    found.execute(pid_file)
    assert seen == [("ws://a:xxx@b/", 3, True, True)]
    assert "Exec format error; this image goes on" in caplog.text
    assert (found.wanted, stop.is_set(), image.store.outlives) == (False, False, False)
    assert [os.get_inheritable(fd) for fd in (kept, pid_file)] == [False, False]
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert os.getcwd() == folder
    # The service begins again, with what was kept.
    assert image.store.take("port-7") == [kept]
    os.close(pid_file)


def test_a_signal_that_ends_the_process_is_left_for_the_new_image(
    rehearsals: Rehearsals, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _, stop = made()
    found.request()
    found.end(signal.SIGTERM)
    sent = list[object]()

    def kill(thread: int, number: int) -> None:
        sent.append((thread, number, number in signal.pthread_sigmask(signal.SIG_BLOCK, ())))

    def execute(*_: object) -> None:
        raise OSError(8, "Exec format error")

    monkeypatch.setattr(signal, "pthread_kill", kill)
    monkeypatch.setattr(os, "execve", execute)
    found.execute(None)
    assert sent == [(threading.get_ident(), signal.SIGTERM, True)]
    assert not stop.is_set()
