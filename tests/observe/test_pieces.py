"""Long answers in turns."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import gevent
import pytest

from etherws.observe import pieces
from etherws.observe.pieces import PIECE, in_pieces


def test_pieces_are_joined_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "LOW_PRIORITY_TURN_SECONDS", 60.0)
    found = list(in_pieces(iter([b"x" * 1000] * 200)))
    assert b"".join(found) == b"x" * 200_000
    assert [len(piece) for piece in found] == [66_000, 66_000, 66_000, 2_000]
    assert PIECE <= 66_000
    assert list(in_pieces(iter(()))) == []


def test_others_go_on_between_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that has taken its time ends after the piece that is being made."""
    monkeypatch.setattr(pieces, "LOW_PRIORITY_TURN_SECONDS", 0.0001)
    turns = 0

    def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0.00001)

    def made() -> list[int]:
        seen = []
        for _ in in_pieces(slow()):
            seen.append(turns)
        return seen

    def slow() -> Iterator[bytes]:
        for _ in range(20):
            end = monotonic() + 0.0002
            while monotonic() < end:
                pass
            yield b"x"

    other = gevent.spawn(others)
    seen = made()
    other.kill()
    assert len(set(seen)) == len(seen) == 20
