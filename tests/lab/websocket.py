"""WebSocket frames, written byte by byte, and a decoder fed in pieces."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from etherws.tunnel.frames import Decoder

KEY = b"\x01\x02\x03\x04"


def xor(data: bytes, key: bytes = KEY) -> bytes:
    """The slow way to mask."""
    return bytes(byte ^ key[at % 4] for at, byte in enumerate(data))


def frame(first: int, payload: bytes, *, masked: bool, length: int | None = None) -> bytes:
    """A frame, by the book and byte by byte."""
    size = len(payload) if length is None else length
    if size < 126:
        head = bytes([first, size | masked << 7])
    elif size < 65536:
        head = bytes([first, 126 | masked << 7]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, 127 | masked << 7]) + size.to_bytes(8, "big")
    return head + (KEY + xor(payload) if masked else payload)


def feed(decoder: Decoder, data: bytes, cuts: Iterable[int] = ()) -> list[tuple[int, bytes]]:
    """Everything that comes of `data`, given in pieces as `cuts` say."""
    events = []
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, stop in itertools.pairwise(edges):
        piece = data[start:stop]
        while piece:
            space = decoder.space()
            size = min(len(space), len(piece))
            space[:size] = piece[:size]
            piece = piece[size:]
            events += [(opcode, bytes(payload)) for opcode, payload in decoder.received(size)]
            while decoder.pending:
                events += [(opcode, bytes(payload)) for opcode, payload in decoder.received(0)]
    return events
