"""What a message of version 1 holds."""

from __future__ import annotations

from etherws.wire import BATCH_BYTES, FRAME_ROOM, Batch, Version1, buffer


def test_each_frame_of_a_batch_is_a_message() -> None:
    batch = Batch()
    batch.view[:200] = bytes(range(200))
    batch.spans = [(0, 60), (60, 74), (74, 200)]
    messages = [bytes(message) for message in Version1().messages(batch)]
    assert messages == [bytes(range(60)), bytes(range(60, 74)), bytes(range(74, 200))]


def test_each_message_is_a_frame_and_what_is_too_short_is_counted() -> None:
    wire = Version1()
    messages = [bytes(size) for size in range(20)]
    assert wire.frames(messages) == [bytes(size) for size in range(14, 20)]
    assert wire.drops == {"runt": 14}
    assert wire.frames([]) == []
    assert wire.drops == {"runt": 14}


def test_a_batch_has_room_for_the_largest_frame_behind_a_full_batch() -> None:
    for headroom in (0, 4):
        batch = Batch(headroom)
        assert batch.headroom == headroom
        assert len(batch.view) - (BATCH_BYTES - 1 + headroom) > FRAME_ROOM
        assert batch.spans == []


def test_a_buffer_is_zero_and_writable() -> None:
    view = buffer(10_000)
    assert bytes(view) == bytes(10_000)
    view[9_999] = 1
    assert view[9_999] == 1
