"""The workers of one server: started, replaced, killed when they hang, ended with it. Here they are small scripts."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial

import gevent
import pytest

from etherws.errors import WorkerError
from etherws.workers import supervisor as supervisor_module
from etherws.workers.load_table import LoadTable, create
from etherws.workers.supervisor import FIRST_PAUSE, Supervisor, Worker
from tests.lab.hosts import PATIENCE

#: What each script begins with: its channel is descriptor `channel`.
BEGIN = """
import os, signal, socket, sys, time
from etherws.workers.load_table import LoadTable
table = LoadTable(int(sys.argv[3]))
channel = socket.socket(fileno=int(sys.argv[2]))
def ready():
    table.claim()
    table.write(7, 0)
"""

#: A worker that does as it should.
GOOD = """
ready()
channel.settimeout(0.05)
while True:
    table.write(7, 0)
    try:
        if not channel.recv(100): break
    except TimeoutError: pass
"""

HANGS = "ready()\nwhile True: time.sleep(100)"

Made = Callable[..., Supervisor]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(supervisor_module, "LOOK", 0.1)
    # On a busy machine a worker may not run for a second: only the tests of workers that hang look for that.
    monkeypatch.setattr(supervisor_module, "LOOKS", round(PATIENCE / 0.1))
    with gevent.Timeout(PATIENCE):
        yield


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "LOOKS", 10)


@pytest.fixture
def table() -> Iterator[LoadTable]:
    table = LoadTable(create())
    yield table
    table.close()


@pytest.fixture
def made(table: LoadTable) -> Iterator[Made]:
    """Makes a supervisor of workers that run these scripts, one after another; the last one for all that follow."""
    all_made: list[tuple[Supervisor, list[Worker]]] = []

    def make(*scripts: str, count: int = 1, pauses: list[float] | None = None) -> Supervisor:
        left = list(scripts)
        attached: list[Worker] = []

        def argv(_: str, *arguments: str) -> list[str]:
            script = left.pop(0) if len(left) > 1 else left[0]
            return [sys.executable, "-c", BEGIN + script, *arguments]

        def sleep(seconds: float) -> None:
            if pauses is not None:
                pauses.append(seconds)
            gevent.sleep(0)

        found = Supervisor(count, table, (table.fd,), attached.append, argv=argv, sleep=sleep)
        all_made.append((found, attached))
        return found

    yield make
    for found, attached in all_made:
        for worker in attached:
            worker.channel.close()
        found.stop()
        assert all(worker.child.ended.is_set() for worker in attached)


def until(condition: Callable[[], object]) -> None:
    while not condition():
        gevent.sleep(0.01)


def replaced(found: Supervisor, first: Worker) -> bool:
    return found._workers[1] is not first and found._workers[1].ready


def test_the_start_is_over_when_all_accept(made: Made, table: LoadTable) -> None:
    found = made(GOOD, count=2)
    found.start()
    assert {row.pid for row in table.others()} == {worker.child.pid for worker in found._workers.values()}
    assert all(worker.ready for worker in found._workers.values())


def test_a_worker_that_ends_is_replaced_and_the_log_says_how_it_ended(
    made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    found = made(GOOD)
    found.start()
    first = found._workers[1]
    os.kill(first.child.pid, signal.SIGKILL)
    until(partial(replaced, found, first))
    assert (
        f"worker 1 (pid {first.child.pid}) is gone: it was ended by SIGKILL; its 7 clients connect again" in caplog.text
    )


@pytest.mark.usefixtures("impatient")
def test_a_worker_that_hangs_is_killed_and_replaced(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    found = made(HANGS, GOOD)
    found.start()
    first = found._workers[1]
    until(partial(replaced, found, first))
    assert f"worker 1 (pid {first.child.pid}) has not answered for 1 s: it is killed" in caplog.text
    assert "its 7 clients connect again" in caplog.text


@pytest.mark.usefixtures("impatient")
def test_a_stopped_worker_is_killed_too(made: Made) -> None:
    found = made(GOOD)
    found.start()
    first = found._workers[1]
    os.kill(first.child.pid, signal.SIGSTOP)
    until(first.child.ended.is_set)


def test_a_worker_that_never_starts_is_killed(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor_module, "START_TIMEOUT", 0.5)
    found = made("time.sleep(100)")
    with pytest.raises(WorkerError):
        found.start()
    assert "has not started within 0 s" in caplog.text


def test_the_start_fails_with_the_words_of_the_worker(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    found = made("os.write(2, b'<40>/x.pem: no such file\\n'); sys.exit(3)", count=2)
    found._sleep = gevent.sleep
    with pytest.raises(WorkerError, match=r"no worker could be started: /x\.pem: no such file"):
        found.start()
    # Both say it, and it is the same.
    assert caplog.text.count("/x.pem: no such file") == 1
    assert "could not start: it ended with status 3" in caplog.text


def test_the_start_fails_if_there_is_no_program(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    found = made(GOOD)
    found._argv = lambda *_: ["/nowhere"]
    with pytest.raises(WorkerError, match=r"No such file or directory: .?/nowhere"):
        found.start()


def test_one_of_two_that_starts_is_enough(made: Made) -> None:
    found = made("sys.exit(1)", GOOD, count=2)
    found.start()
    until(lambda: all(worker.ready for worker in found._workers.values()))


def test_one_that_ends_at_once_again_and_again_is_started_less_often(made: Made) -> None:
    pauses: list[float] = []
    found = made("sys.exit(1)", pauses=pauses)
    with pytest.raises(WorkerError):
        found.start()
    found = made(GOOD, *["ready(); sys.exit(1)"] * 8, GOOD, count=1, pauses=(pauses := []))
    found.start()
    found.signal(signal.SIGKILL)
    until(lambda: len(pauses) == 10)
    assert pauses == [0.0] + [min(30.0, FIRST_PAUSE * 2**number) for number in range(9)]


def test_signals_reach_those_that_are_ready_for_them(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    code = "signal.signal(signal.SIGHUP, lambda *_: os.write(2, b'<20>read again\\n'))" + GOOD
    found = made(code, count=2)
    found.start()
    # Of this logger: a test before this one may have given it a level of its own.
    with caplog.at_level(logging.INFO, "etherws"):
        found.signal(signal.SIGHUP)
        until(lambda: caplog.text.count("read again") == 2)
    assert "worker 1: read again" in caplog.text
    assert "worker 2: read again" in caplog.text


def test_workers_that_do_not_end_are_killed(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_TIMEOUT", 0.2)
    found = made(HANGS, GOOD, count=2)
    found.start()
    workers = list(found._workers.values())
    for worker in workers:
        worker.channel.close()
    found.stop()
    assert all(worker.child.ended.is_set() for worker in workers)
    assert caplog.text.count("did not end in time: it is killed") == 1
    assert "is gone" not in caplog.text


def test_descriptors_do_not_grow(made: Made) -> None:
    found = made(GOOD)
    found.start()
    # What tests before have left must not go meanwhile.
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        first = found._workers[1]
        first.child.signal(signal.SIGKILL)
        until(partial(replaced, found, first))
        first.channel.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_worker_that_does_not_end_keeps_clients_waiting_for_less_time_at_a_hand_over(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    monkeypatch.setattr(gevent, "wait", lambda objects, timeout: given.append(timeout))
    for handing_over in (True, False):
        found = made(HANGS)
        found.stop(handing_over=handing_over)
    assert given == [supervisor_module.HAND_OVER_TIMEOUT, supervisor_module.STOP_TIMEOUT]
