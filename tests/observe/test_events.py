"""The ring of the last events, and who follows it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from etherws.events import JOIN, event
from etherws.observe.events import EVENTS_MAX, GAP, TEXT_MAX, Events

log = logging.getLogger("etherws.test_ring")


@pytest.fixture
def events() -> Iterator[Events]:
    """A ring that gets what `log` gets."""
    ring = Events(clock=lambda: 1000.0, sleep=lambda _: gevent.sleep(0))
    log.addHandler(ring)
    log.setLevel(logging.INFO)
    yield ring
    log.removeHandler(ring)


def test_a_record_is_an_event_with_its_fields(events: Events) -> None:
    log.info("%s joined", "a", extra=event(JOIN, identity="a", device="ethws1"))
    log.warning("odd")
    (one, two), following = events.since(0)
    assert one["number"] == 1_000_000
    assert (one["level"], one["kind"], one["text"]) == ("info", "join", "a joined")
    assert (one["identity"], one["device"]) == ("a", "ethws1")
    assert one["time"] == pytest.approx(two["time"], abs=60)
    assert (two["kind"], two["level"]) == ("other", "warning")
    assert following == events.next == 1_000_002
    assert events.since(two["number"]) == ([two], following)
    assert events.since(following) == ([], following)


def test_a_record_that_has_no_text_is_none(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log.info("%d", "no number")
    assert events.since(0)[0] == []


def test_a_field_cannot_stand_for_what_every_event_has(events: Events) -> None:
    log.info("real", extra=event(JOIN, text="forged", time=0, level="forged", number=7))
    found = events.since(0)[0][0]
    assert (found["text"], found["level"]) == ("real", "info")
    assert found["time"] != 0
    assert found["number"] == 1_000_000
    events.add({"kind": "made up"})
    assert events.counts == {"join": 1, "other": 1}


def test_the_ring_has_an_end_and_says_what_has_gone(events: Events) -> None:
    for number in range(EVENTS_MAX + 5):
        log.info("event %d", number)
    found, following = events.since(0)
    assert [found[0]["text"], len(found)] == ["event 5", EVENTS_MAX]
    assert events.left_out(1_000_000) == 5
    assert events.counts == {"other": EVENTS_MAX + 5}
    assert events.left_out(1_000_005) == 0
    # Of another process, of which nothing is known here.
    assert events.left_out(3) == events.left_out(following + 9) == 0
    assert events.since(following + 9) == (found, following)
    assert len(events.since(following - 3)[0]) == 3


def test_a_text_has_an_end(events: Events) -> None:
    events.add({"time": 1.0, "level": "info", "kind": "other", "text": "x" * 10_000})
    events.add({"time": 1.0, "level": "info", "kind": "other"})
    assert [len(each["text"]) for each in events.since(0)[0]] == [TEXT_MAX, 0]


def test_followers_get_what_is_there_and_what_comes(events: Events) -> None:
    log.info("before")
    followers = [events.follow(0), events.follow(0)]
    first = [next(each) for each in followers]
    assert [each and each["text"] for each in first] == ["before", "before"]
    waiting: list[Any] = [gevent.spawn(next, each) for each in followers]
    gevent.sleep(0)
    log.info("after")
    assert [each.get(timeout=5)["text"] for each in waiting] == ["after", "after"]


def test_a_quiet_time_is_said(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etherws.observe.events.QUIET", 0.001)
    follower = events.follow(0)
    assert next(follower) is None
    log.info("at last")
    found = next(follower)
    assert found
    assert found["text"] == "at last"


def test_a_slow_follower_is_told_how_many_it_missed(events: Events) -> None:
    """Ten thousand events a second are no more work than a place in the ring each: nobody waits for who reads."""
    follower = events.follow(0)
    log.info("first")
    assert (next(follower) or {})["text"] == "first"
    for number in range(10_000):
        log.info("event %d", number)
    gap = next(follower)
    assert gap
    assert gap["kind"] == GAP
    assert gap["left_out"] == 9_000
    assert gap["text"] == "9000 events were left out: they came faster than they were read"
    rest = [next(follower) for _ in range(EVENTS_MAX)]
    assert [(rest[0] or {})["text"], (rest[-1] or {})["text"]] == ["event 9000", "event 9999"]
    # Its number is before that of the first that came: who goes on there gets them again.
    assert gap["number"] == (rest[0] or {})["number"] - 1


def test_a_follower_of_the_process_before_misses_nothing(events: Events) -> None:
    log.info("new")
    assert (next(events.follow(999_000)) or {})["text"] == "new"
