"""The table of loads: who counts, what junk does, and whose row it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.workers.load_table import _ROW_SIZE, ROWS, SIZE, STALE, LoadTable, Row, create

Make = Callable[..., LoadTable]


class Clock:
    """Nanoseconds, as the test says."""

    now = 10 * STALE

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Iterator[Make]:
    """Makes tables of one memory, each as another process has it."""
    fd = create()
    made: list[LoadTable] = []

    def one(pid: int, runs: Callable[[int], bool] = lambda _: True) -> LoadTable:
        table = LoadTable(os.dup(fd), clock=clock, runs=runs)
        # The locks are of a process, and this is one process.
        table._pid, table._own = pid, len(made)
        made.append(table)
        return table

    yield one
    for table in made:
        table.close()
    os.close(fd)


def test_what_one_writes_the_others_read(make: Make, clock: Clock) -> None:
    one, other = make(1001), make(1002)
    one.write(7, 3)
    other.write(0, 1, full=True)
    assert other.others() == [Row(1001, 7, 3, 0, clock.now)]
    assert other.others()[0].load == 10
    assert one.others() == [Row(1002, 0, 1, 1, clock.now)]


def test_one_that_is_silent_for_a_second_does_not_count(make: Make, clock: Clock) -> None:
    one, other = make(1001), make(1002)
    one.write(7, 3)
    clock.now += STALE
    assert other.others()
    clock.now += 1
    assert other.others() == []
    # What it had is still known: the line about its end says it.
    assert other.of(1001) == Row(1001, 7, 3, 0, clock.now - STALE - 1)
    assert other.of(1003) is None


def test_a_row_of_the_future_or_of_a_process_that_is_gone_does_not_count(make: Make, clock: Clock) -> None:
    one, other = make(1001), make(1002, runs=lambda pid: pid != 1001)
    one.write(7, 3)
    assert other.others() == []
    third = make(1003)
    clock.now -= 1
    assert third.others() == []


def test_a_process_that_runs_is_told_from_one_that_has_ended() -> None:
    table = LoadTable(create())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert table._runs(os.getppid())
    assert not table._runs(ended.pid)
    assert not table._runs(1 << 31)
    assert not LoadTable(create())._runs((1 << 22) + 1)
    table.close()


@given(st.integers(0, ROWS - 1), st.binary(min_size=_ROW_SIZE, max_size=_ROW_SIZE))
def test_junk_is_no_row_and_no_error(number: int, junk: bytes) -> None:
    table = LoadTable(create())
    table._memory[number * _ROW_SIZE : (number + 1) * _ROW_SIZE] = junk
    assert table.others() == []
    table.close()


@given(st.integers(0, _ROW_SIZE))
def test_half_a_row_is_the_row_before_or_none(cut: int) -> None:
    table = LoadTable(create())
    assert table.claim()
    table.write(1, 0)
    before = table._memory[:_ROW_SIZE]
    table.write(2, 0)
    after = table._memory[:_ROW_SIZE]
    table._memory[:_ROW_SIZE] = after[:cut] + before[cut:]
    row = table.of(os.getpid())
    assert row is None or row.tunnels in (1, 2)
    table.close()


def test_each_process_has_one_row_and_leaves_it_at_its_end() -> None:
    table = LoadTable(create())
    code = (
        "import os, sys; from etherws.workers.load_table import LoadTable;"
        f"table = LoadTable({table.fd}); found = table.claim() and table.claim() and table._own; table.write(1, 2);"
        "print(found, flush=True); sys.stdin.read()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[table.fd],
            text=True,
        )
        for _ in range(2)
    ]
    rows = {int(process.stdout.readline()) for process in processes if process.stdout}
    assert rows == {0, 1}
    assert {row.pid for row in table.others()} == {process.pid for process in processes}
    for process in processes:
        process.kill()
        process.communicate()
    # Whatever they left there is nobody's, and the rows are free again.
    assert table.others() == []
    assert table.claim()
    assert table._own == 0
    table.close()


def test_without_a_row_nothing_is_written(clock: Clock) -> None:
    table = LoadTable(create(), clock=clock)
    table.write(1, 1)
    assert table.of(os.getpid()) is None
    table.close()


def test_a_table_is_given_up_at_once(make: Make) -> None:
    fd = create()
    table, other = LoadTable(os.dup(fd)), LoadTable(fd)
    other._own = 1
    assert table.claim()
    table.write(1, 1)
    table.close()
    assert other.of(os.getpid()) is None
    other.close()


def test_all_rows_taken_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    table = LoadTable(create())
    monkeypatch.setattr("fcntl.lockf", lambda *_: (_ for _ in ()).throw(BlockingIOError()))
    assert not table.claim()
    table.close()


def test_what_is_no_table_is_refused() -> None:
    fd = os.memfd_create("short")
    with pytest.raises(OSError, match=str(SIZE)):
        LoadTable(fd)
    os.close(fd)


def test_no_descriptor_is_left_when_the_kernel_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr("os.ftruncate", lambda *_: (_ for _ in ()).throw(OSError("no memory")))
    with pytest.raises(OSError, match="no memory"):
        create()
    assert os.listdir("/proc/self/fd") == before
