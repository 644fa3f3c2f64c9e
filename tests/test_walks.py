"""Walks that keep nobody waiting."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import gevent
import pytest

from etherws import garbage, walks
from etherws.walks import TURN_SECONDS, Pauses, in_turns


class Clock:
    """A clock that somebody else moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def walk(self) -> Iterator[int]:
        """Ten numbers, each of which takes a quarter of a turn."""
        for number in range(10):
            self.now += TURN_SECONDS / 4
            yield number


class Polls:
    """Counts the polls of the event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._watcher = gevent.get_hub().loop.check()
        self._watcher.start(self._begin)

    def _begin(self) -> None:
        self.count += 1

    def close(self) -> None:
        """Count no more."""
        self._watcher.close()


@pytest.fixture
def polls() -> Iterator[Polls]:
    """The polls from now on."""
    made = Polls()
    yield made
    made.close()


def test_a_walk_waits_once_its_turn_is_over() -> None:
    clock, waits, seen = Clock(), list[int](), list[int]()
    for number in in_turns(clock.walk(), clock=lambda: clock.now, wait=lambda: waits.append(len(seen))):
        seen.append(number)
        # What the caller does counts, too.
        clock.now += TURN_SECONDS / 4
    assert seen == list(range(10))
    assert waits == [0, 2, 4, 6, 8, 10]
    # What follows has half a turn at least.
    waits.clear()
    for _ in in_turns(range(3), clock=lambda: clock.now, wait=lambda: waits.append(len(waits))):
        clock.now += TURN_SECONDS / 4
    assert waits == [0, 1]


def test_what_a_turn_has_made_is_no_matter_for_a_search_for_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, spared, searched = Clock(), list[float](), list[float]()
    monkeypatch.setattr(garbage, "spare_young", lambda: spared.append(clock.now))
    monkeypatch.setattr(garbage, "search_if_due", lambda: searched.append(clock.now))
    assert list(in_turns(clock.walk(), clock=lambda: clock.now, wait=lambda: None)) == list(range(10))
    assert spared == [TURN_SECONDS, 2 * TURN_SECONDS]
    assert searched == [pytest.approx(2.5 * TURN_SECONDS)]


def test_only_one_walk_has_a_turn_between_two_polls(polls: Polls) -> None:
    pauses, turns = Pauses(), list[tuple[int, str]]()

    def walk(name: str) -> None:
        for _ in range(5):
            pauses.pause()
            turns.append((polls.count, name))

    gevent.joinall([gevent.spawn(walk, name) for name in "abc"], raise_error=True)
    # One after the other, and never two before the next poll.
    assert "".join(name for _, name in turns) == "abc" * 5
    assert len({poll for poll, _ in turns}) == 15


def test_what_comes_meanwhile_is_served_between_two_turns() -> None:
    ours, theirs = gevent.socket.socketpair()
    pauses, served = Pauses(), list[bytes]()
    with ours, theirs:
        reader = gevent.spawn(lambda: served.append(theirs.recv(1)))
        gevent.sleep(0)
        ours.send(b"x")
        pauses.pause()
        pauses.pause()
        assert served == [b"x"]
        reader.get()


def test_who_is_killed_while_waiting_takes_no_turn() -> None:
    pauses = Pauses()
    killed, other = gevent.spawn(pauses.pause), gevent.spawn(pauses.pause)
    gevent.sleep(0)
    killed.kill()
    other.get()
    pauses.pause()
    assert not pauses._waiting
    assert pauses._timer is None


def test_each_event_loop_has_turns_of_its_own() -> None:
    done = list[int]()

    def elsewhere() -> None:
        done.extend(in_turns(range(3)))
        gevent.get_hub().destroy()

    waiting = gevent.spawn(walks.pause)
    gevent.sleep(0)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert done == [0, 1, 2]
    # Nobody has taken its turn from it.
    waiting.get()


def test_a_walk_of_this_process_ends() -> None:
    gc.collect()
    assert list(in_turns(range(3))) == [0, 1, 2]
    assert not list(in_turns(()))
