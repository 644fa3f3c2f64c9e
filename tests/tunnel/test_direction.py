"""A direction of a session: when it has a greenlet, and what becomes of what comes meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent.event import Event

from etherws.errors import EtherwsError
from etherws.tunnel import direction as direction_module
from etherws.tunnel.direction import Direction
from tests.lab.hosts import PATIENCE


class Source:
    """Gives what was put in. Each piece is carried by work()."""

    def __init__(self) -> None:
        self.pieces, self.carried = list[object](), list[object]()
        self.call: Callable[[], object] | None = None
        #: Greenlets that have begun to work, and ended it.
        self.begun = self.ended = 0
        self.come, self.waits = Event(), False
        #: Whether nothing has come lately.
        self.silent = False

    def put(self, piece: object) -> None:
        """Something comes."""
        self.pieces.append(piece)
        self.come.set()
        if self.call:
            gevent.get_hub().loop.run_callback(self.call)

    def quiet(self, seconds: float) -> bool:
        """See direction.Source."""
        return self.waits and self.silent and not self.pieces

    def on_readable(self, call: Callable[[], object] | None) -> None:
        """See direction.Source."""
        self.call = call

    def work(self) -> None:
        """Carry what comes."""
        self.begun += 1
        try:
            while True:
                while not self.pieces:
                    self.come.clear()
                    self.waits = True
                    try:
                        self.come.wait()
                    finally:
                        self.waits = False
                piece = self.pieces.pop(0)
                if isinstance(piece, Exception):
                    raise piece
                self.carried.append(piece)
        finally:
            self.ended += 1


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    with gevent.Timeout(PATIENCE):
        yield


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(direction_module, "QUIET", 0.001)
    return Source()


def until(condition: Callable[[], object]) -> None:
    while not condition():
        gevent.sleep(0.001)


def test_a_quiet_direction_has_no_greenlet_and_begins_again_with_what_comes(source: Source) -> None:
    ends = list[EtherwsError]()
    direction = Direction(source.work, source, ends.append)
    source.put(1)
    until(lambda: source.carried == [1])
    # Not yet: something came a moment ago.
    gevent.sleep(0.01)
    assert source.begun == 1
    assert source.call is None
    source.silent = True
    until(lambda: source.call)
    assert (source.begun, source.ended) == (1, 1)
    assert direction.stop() == []
    assert source.call is None

    direction = Direction(source.work, source, ends.append)
    for number in (2, 3, 4):
        until(lambda: source.call)
        source.put(number)
        until(lambda number=number: source.carried[-1] == number)  # type: ignore[misc]
    gevent.killall(direction.stop())
    assert source.carried == [1, 2, 3, 4]
    assert source.begun == source.ended
    assert ends == []


def test_what_comes_twice_at_rest_begins_one_greenlet(source: Source) -> None:
    direction = Direction(source.work, source, lambda _: None)
    source.silent = True
    until(lambda: source.call)
    source.silent = False
    source.put("a")
    source.put("b")
    until(lambda: source.carried == ["a", "b"])
    assert source.begun == 2
    gevent.killall(direction.stop())
    assert source.ended == 2


def test_a_busy_greenlet_is_left_alone(source: Source) -> None:
    """It may wait for something else than its source: a full socket, the rules of its port."""
    may = Event()
    direction = Direction(may.wait, source, lambda _: None)
    source.silent = True
    gevent.sleep(0.01)
    (greenlet,) = direction.stop()
    assert not greenlet.ready()
    may.set()
    greenlet.join()


def test_an_error_is_told_and_nothing_begins_again(source: Source) -> None:
    ends = list[EtherwsError]()
    direction = Direction(source.work, source, ends.append)
    until(lambda: source.waits)
    source.put(EtherwsError("over"))
    until(lambda: ends)
    source.silent = True
    gevent.sleep(0.01)
    assert [str(exc) for exc in ends] == ["over"]
    assert source.begun == 1
    gevent.killall(direction.stop())


def test_who_has_left_touches_the_source_no_more(source: Source) -> None:
    """Another session reads the same TAP then."""
    direction = Direction(source.work, source, lambda _: None)
    until(lambda: source.waits)
    direction.leave()
    source.silent = True
    gevent.sleep(0.01)
    assert source.ended == 0
    other = list[int]()
    source.on_readable(lambda: other.append(1))
    gevent.killall(direction.stop())
    assert source.call
    source.put("for the other")
    until(lambda: other)
