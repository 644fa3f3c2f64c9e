"""What pages are sent, and that they share one reading of the sessions."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any
from unittest import mock

import gevent
import pytest

from etherws.counters import Values
from etherws.errors import NoSuchClient
from etherws.observe import stream
from etherws.observe.history import COLUMNS
from etherws.observe.stream import BEHIND_MAX, EVENTS_MAX, ROWS_MAX, LivePage, Table, brief, message
from tests.lab.subjects import FakeServer


class Ring:
    """Events, numbered from 1000 on."""

    def __init__(self, count: int = 3) -> None:
        self.events: list[Values] = [{"number": 1000 + number, "text": f"event {number}"} for number in range(count)]

    def since(self, number: int) -> tuple[list[Values], int]:
        following = 1000 + len(self.events)
        return (self.events[number - 1000 :] if 1000 <= number <= following else list(self.events)), following


class Counted(FakeServer):
    """Counts how often its sessions were read, and stands still."""

    def __init__(self, sessions: int = 3, parked: int = 1) -> None:
        super().__init__(sessions, parked)
        self.walks = 0
        self.failing = False

    def _carried(self, number: int) -> int:
        return 1000 * number

    def sessions(self) -> Iterator[Values]:
        self.walks += 1
        if self.failing:
            raise RuntimeError("no sessions today")
        yield from super().sessions()


def parsed(chunk: bytes) -> tuple[str, Any, str]:
    """The name, the values and the id of a message."""
    assert chunk.endswith(b"\n\n")
    fields = dict(line.split(": ", 1) for line in chunk.decode().strip().split("\n"))
    return fields.get("event", ""), json.loads(fields["data"]), fields.get("id", "")


def until_tick(pages: Iterator[bytes]) -> list[tuple[str, Any, str]]:
    """Messages to the next tick."""
    found = []
    for chunk in pages:
        found.append(parsed(chunk.removeprefix(b"retry: 2000\n\n")))
        if found[-1][0] == "tick":
            break
    return found


@pytest.fixture
def quick() -> Iterator[None]:
    """Ticks follow each other at once."""
    with mock.patch.object(stream, "TICK", 0.0), mock.patch.object(stream, "STEP", 0.0):
        yield


def started(subject: FakeServer, ring: Ring | None = None) -> LivePage:
    """What feeds the pages of a subject."""
    return LivePage(subject, ring or Ring())


def test_a_page_gets_all_and_then_what_changed(quick: None) -> None:
    subject, ring = Counted(120), Ring()
    live = started(subject, ring)
    page = live.stream("")
    first = until_tick(page)
    name, start, number = first[0]
    assert (name, number) == ("start", "1003")
    assert [event["number"] for event in start["events"]] == [1000, 1001, 1002]
    rows = [row for name, values, _ in first if name == "rows" for row in values.get("sessions", [])]
    assert [row["index"] for row in rows] == list(range(10, 130))
    assert max(len(values.get("sessions", [])) for name, values, _ in first if name == "rows") == ROWS_MAX
    assert [row["identity"] for _, values, _ in first[1:-1] for row in values.get("parked", [])] == ["lost-0"]
    assert "until" in str(first)
    assert first[-1][1]["overview"]["version"] == "2.0"
    assert first[-1][1]["overview"]["totals"]["joins"] == 125
    # Nothing changed but one that is gone, and the heartbeat of totals goes on.
    subject.gone.add(5)
    ring.events.append({"number": 1003, "text": "5 left"})
    second = until_tick(page)
    while not any(name == "rows" for name, _, _ in second):
        second = until_tick(page)
    assert [values for name, values, _ in second if name == "rows"] == [{"gone_sessions": [{"index": 15}]}]
    assert second[-1][1]["events"] == [{"number": 1003, "text": "5 left"}]
    assert second[-1][2] == "1004"
    page.close()  # type: ignore[attr-defined]
    live.close()


def test_pages_share_one_reading_and_none_is_made_for_nobody(quick: None) -> None:
    subject = Counted()
    live = started(subject)
    gevent.sleep(0)
    assert subject.walks == 0
    pages = [live.stream("") for _ in range(5)]
    assert len(until_tick(pages[0])) == 3
    walks = subject.walks
    for page in pages[1:]:
        # Who comes later gets the rows at once, and not only what changes.
        seen = until_tick(page)
        assert seen[0][0] == "start"
        assert len(seen[1][1]["sessions"]) == 3
    assert subject.walks <= walks + 5
    for page in pages:
        page.close()  # type: ignore[attr-defined]
    gevent.sleep(0.01)
    walks = subject.walks
    gevent.sleep(0.01)
    assert subject.walks == walks
    # It begins again with the next one.
    assert len(until_tick(live.stream(""))) == 3
    live.close()


def test_a_page_that_connects_again_misses_nothing(quick: None) -> None:
    live = started(FakeServer(), Ring(5))
    assert [event["number"] for event in until_tick(live.stream("1003"))[0][1]["events"]] == [1003, 1004]
    for strange in ("7", "1003.5", "x" * 10_000, "9" * 5000, "\u0663", "-1"):
        assert len(until_tick(live.stream(strange))[0][1]["events"]) == 5, strange
    run = until_tick(live.stream(""))[0][1]["run"]
    assert until_tick(live.stream(""))[0][1]["run"] == run
    assert until_tick(started(FakeServer()).stream("1003"))[0][1]["run"] != run
    live.close()


def test_a_flood_of_events_is_cut_and_counted(quick: None) -> None:
    ring = Ring(1)
    live = started(FakeServer(), ring)
    page = live.stream("")
    until_tick(page)
    ring.events += [{"number": 1001 + number} for number in range(EVENTS_MAX + 50)]
    ticks = (until_tick(page)[-1][1] for _ in range(9))
    tick = next(tick for tick in ticks if tick["events"])
    assert (len(tick["events"]), tick["left_out"]) == (EVENTS_MAX, 50)
    live.close()


def test_a_page_that_reads_nothing_is_cut(quick: None) -> None:
    clock = mock.Mock(return_value=100.0)
    with mock.patch.object(stream, "monotonic", clock):
        live = started(FakeServer())
        reading, stalled = live.stream(""), live.stream("")
        until_tick(reading)
        next(stalled)
        for _ in range(20):
            clock.return_value += BEHIND_MAX / 10
            until_tick(reading)
        assert len(list(stalled)) < 12
        assert until_tick(reading)
        live.close()


def test_an_error_is_logged_and_the_next_reading_made(quick: None, caplog: pytest.LogCaptureFixture) -> None:
    subject = Counted()
    live = started(subject)
    subject.failing = True
    page = live.stream("")
    assert parsed(next(page).removeprefix(b"retry: 2000\n\n"))[0] == "start"
    gevent.sleep(0.01)
    subject.failing = False
    assert until_tick(page)[-1][0] == "tick"
    live.close()
    assert "no sessions today" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR


def test_the_end_ends_all_pages(quick: None) -> None:
    live = started(FakeServer())
    live.start()
    page = live.stream("")
    until_tick(page)
    live.close()
    assert len(list(page)) < 3


def test_history_is_of_all_or_of_one(quick: None) -> None:
    live = started(Counted())
    live.start()
    gevent.sleep(0.01)
    whole = live.history(None)
    live.close()
    assert whole.keys() == {"step", "end", "reasons", *COLUMNS}
    assert whole["sessions"][-1] == 3
    assert len(live.history(10)["sent"]) == 120
    with pytest.raises(NoSuchClient):
        live.history(5)


def test_the_table_tells_changes_field_by_field() -> None:
    table = Table()
    assert table.change("sessions", {"index": 1, "a": 1, "b": 2}) == ("sessions", {"index": 1, "a": 1, "b": 2})
    assert list(table.gone()) == []
    assert table.change("sessions", {"index": 1, "a": 1, "b": 2}) is None
    assert table.change("sessions", {"index": 1, "b": 3, "c": None}) == (
        "sessions",
        {"index": 1, "a": None, "b": 3, "c": None},
    )
    assert table.change("parked", {"index": 1}) == ("parked", {"index": 1})
    assert list(table.gone()) == []
    assert table.rows() == [("sessions", {"index": 1, "b": 3, "c": None}), ("parked", {"index": 1})]
    table.change("parked", {"index": 1})
    assert list(table.gone()) == [("gone_sessions", {"index": 1})]
    assert list(table.gone()) == [("gone_parked", {"index": 1})]
    assert table.rows() == []


def test_a_row_changes_only_where_that_means_something() -> None:
    values = FakeServer().session(1)
    row = brief(values | {"heard": 7.3, "round_trip": 0.0123456, "rates": {"sent": 1.2, "received": 0.4}})
    assert (row["heard"], row["round_trip"], row["rates"]) == (5, 0.01235, {"sent": 1, "received": 0})
    assert brief(values | {"heard": None, "round_trip": None, "queue": None, "rates": None})["heard"] is None
    assert brief({"index": 1, "until": 1017.25, "left": 17.4}) == {"index": 1, "until": 1017.25}
    assert brief({"index": 1}) == {"index": 1}


def test_hostile_words_cannot_break_a_message() -> None:
    text = message("tick", json.dumps({"identity": "a\n\nevent: start\r\u2028\0</script>"}), 5)
    assert text.count(b"\n") == 4
    assert parsed(text)[1] == {"identity": "a\n\nevent: start\r\u2028\0</script>"}
