"""Where connections go: to the worker that has the fewest, and nobody waits for one that is equal, full or dead."""

from __future__ import annotations

from etherws.workers.balance import ALL, SLACK, Balance
from etherws.workers.load_table import Row


class Table:
    """Stands for the table: the rows of others, and what was written."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.written: list[tuple[int, int, bool]] = []
        self.claimed = False

    def claim(self) -> bool:
        self.claimed = True
        return True

    def write(self, tunnels: int, waiting: int, *, full: bool = False) -> None:
        self.written.append((tunnels, waiting, full))

    def others(self) -> list[Row]:
        return self.rows


class Case:
    """A worker with a load, among others."""

    def __init__(self, *others: Row) -> None:
        self.table = Table()
        self.table.rows = list(others)
        self.tunnels = self.waiting = 0
        self.balance = Balance(self.table, lambda: self.tunnels, lambda: self.waiting)  # type: ignore[arg-type]


def row(load: int, *, full: bool = False) -> Row:
    return Row(1001, load, 0, int(full), 0)


def test_who_is_alone_takes_all() -> None:
    case = Case()
    case.tunnels = 1000
    assert case.balance.look() == (ALL, 0)
    assert case.table.claimed


def test_equal_workers_do_not_wait() -> None:
    case = Case(row(50), row(70))
    case.tunnels = 50
    assert case.balance.look() == (SLACK + 1, 120)


def test_who_is_ahead_leaves_it_to_the_others() -> None:
    case = Case(row(50), row(70))
    case.tunnels, case.waiting = 50, SLACK + 1
    assert case.balance.look()[0] == 0
    case.waiting = 100
    assert case.balance.look()[0] == 0


def test_who_is_behind_takes_what_it_lacks() -> None:
    case = Case(row(50))
    case.tunnels, case.waiting = 7, 3
    assert case.balance.look()[0] == 40 + SLACK + 1


def test_nobody_waits_for_one_that_is_full() -> None:
    case = Case(row(1, full=True))
    case.tunnels = 100
    assert case.balance.look() == (ALL, 0)
    case.table.rows.append(row(99))
    assert case.balance.look()[0] == SLACK


def test_what_the_others_learn() -> None:
    case = Case()
    case.tunnels, case.waiting = 3, 2
    case.balance.publish()
    case.balance.publish(4)
    case.balance.become_full(True)
    case.balance.become_full(True)
    case.balance.publish()
    case.balance.become_full(False)
    assert case.table.written == [
        (0, 0, False),
        (3, 2, False),
        (3, 6, False),
        (3, 2, True),
        (3, 2, True),
        (3, 2, False),
    ]
