"""Long answers, made piece by piece in turns of low-priority work: frames of all sessions go on between two of them.

Read next: tunnel/scheduling.py, which gives the turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from etherws.tunnel.scheduling import LOW_PRIORITY_TURN_SECONDS, low_priority

#: The source of this work. No address and no name of a client is written so.
SOURCE = "monitor()"

#: Bytes that are sent at once: what a UNIX socket has room for, so that few pieces wait for their reader.
PIECE = 64 * 1024


def in_pieces(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in larger pieces, each made in a turn of its own."""
    ended = False
    while not ended:
        found: list[bytes] = []
        size = 0
        with low_priority.turn(SOURCE):
            end = monotonic() + LOW_PRIORITY_TURN_SECONDS
            while size < PIECE and monotonic() < end:
                piece = next(pieces, None)
                if piece is None:
                    ended = True
                    break
                found.append(piece)
                size += len(piece)
        if found:
            yield b"".join(found)
