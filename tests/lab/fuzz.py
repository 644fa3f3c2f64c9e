"""What the tests of tests/fuzz/ have in common: streams of WebSocket frames, pieces of bytes, and a conversation.

The strategies are hypothesis's. Each draws what is mostly right, because two readings of a standard differ near its
edges. Nothing here judges what it draws.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent import socket
from hypothesis import strategies as st

from tests.lab.hosts import PATIENCE
from tests.lab.websocket import frame

#: Bytes of the longest message that is accepted.
MAX = 1_000

#: Frames that are mostly right: near the edge is where two readings of the RFC could differ.
FIRSTS = [0x82] * 6 + [0x81, 0x81, 0x02, 0x01, 0x00, 0x80, 0x80, 0x89, 0x89, 0x8A, 0x88, 0x09, 0x83, 0xC2]

payloads = (
    st.binary(max_size=200)
    | st.text(max_size=40).map(str.encode)
    | st.sampled_from([b"\x03\xe8", b"\x03\xe8bye", b"\x03\xed", bytes(125), bytes(126), bytes(600), bytes(MAX + 1)])
)
frames = st.lists(st.tuples(st.sampled_from(FIRSTS), payloads), max_size=8)


@st.composite
def streams(draw: st.DrawFn, masked: bool) -> bytes:
    """What a peer sends: frames, one in a few of them masked like the other side's, broken in one place or nowhere."""
    wrong = draw(st.integers(0, 60))
    data = bytearray()
    for at, (first, payload) in enumerate(draw(frames)):
        data += frame(first, payload, masked=masked != (at == wrong))
    how = draw(st.sampled_from(["whole", "whole", "cut", "changed", "inserted"]))
    if data and how != "whole":
        at = draw(st.integers(0, len(data) - 1))
        size = {"cut": len(data), "changed": 1, "inserted": 0}[how]
        data[at : at + size] = b"" if how == "cut" else draw(st.binary(min_size=1, max_size=1))
    return bytes(data)


sides_and_streams = st.booleans().flatmap(lambda server: st.tuples(st.just(server), streams(server)))
cuts = st.lists(st.integers(1, 2_500), max_size=10)


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The data, cut."""
    edges = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


def conversation(pieces: Iterable[bytes], serve: Callable[[Any], object]) -> bytes:
    """What comes back from `serve`, which is given a socket, for these pieces and the end of TCP. Behind a whole head
    the end waits for the answer, as that of a client does: a server may take it for a client that hung up."""
    pieces = list(pieces)
    whole = b"\r\n\r\n" in b"".join(pieces)
    near, far = socket.socketpair()
    with near, far, gevent.Timeout(PATIENCE):
        serving = gevent.spawn(serve, far)
        answer = bytearray()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                near.sendall(piece)
                # Lets the other greenlet read it.
                gevent.sleep(0)
            if whole:
                answer += near.recv(65536)
            near.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while more := near.recv(65536):
                answer += more
        serving.get()
    return bytes(answer)
