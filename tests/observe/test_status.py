"""The whole status, in pieces."""

from __future__ import annotations

import json

from etherws.observe.status import encode, status
from tests.lab.subjects import FakeServer


def test_the_status_is_one_object_made_of_small_pieces() -> None:
    subject = FakeServer(5, 2)
    pieces = list(status(subject))
    found = json.loads(b"".join(pieces))
    assert [each["device"] for each in found["sessions"]] == [f"ethws{number}" for number in range(5)]
    assert len(found["parked"]) == 2
    assert found["schema"] == 1
    assert max(map(len, pieces)) < 4000
    assert b"".join(pieces).endswith(b"]}\n")


def test_nothing_is_a_list_too() -> None:
    found = json.loads(b"".join(status(FakeServer(0, 0))))
    assert found["sessions"] == found["parked"] == []


def test_a_peers_words_are_ascii() -> None:
    """Who shows them in a terminal shows no controls."""
    words = "\x1b[2J\n\u202e<script>\udcff"
    assert json.loads(encode({"identity": words}))["identity"] == words
    assert all(0x20 <= byte < 0x7F for byte in encode({"identity": words}))
    assert json.loads(encode({"odd": object})) == {"odd": "<class 'object'>"}
