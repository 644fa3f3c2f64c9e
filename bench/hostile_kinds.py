"""The list of what strangers and tenants can send: KINDS, for hostile.py.

A stranger has not joined: everything before the 101, TLS included. A tenant has: everything behind it. To
add a kind, add it to KINDS. hostile_acts.py and hostile_tls.py say how a connection acts, hostile_frames.py has the
bytes of tenants.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from bench import hostile_acts as acts
from bench import hostile_frames as frames
from bench import hostile_tls
from bench.hostile_acts import Act
from bench.raw_client import LINES, request

#: Addresses of attackers that have many: more than a server's limits for one address are worth.
MANY = 100
#: Sessions of the kind that is about memory.
HOARDERS = 100


@dataclass(frozen=True)
class Kind:
    """A sort of input.

    `act` makes what each connection does. `setup` is the server that it needs: "ws", "wss", "login" (passwords and
    tokens) or "proxy" (PROXY headers); an attack on "ws" can be made in TLS as well. `addresses` is how many addresses
    the attackers have. `connections` replaces the numbers of connections of the command line, where the kind has one
    of its own. With `joins`, new honest clients try to join meanwhile.
    """

    about: str
    act: Callable[[], Act]
    setup: str = "ws"
    addresses: int = 1
    connections: tuple[int, ...] = ()
    joins: bool = False


#: A request line for a path without a tunnel.
NOT_FOUND = b"GET /nothing HTTP/1.1"

#: By name.
KINDS: dict[str, Kind] = {
    # Strangers.
    "silent": Kind("TCP connections that send nothing", lambda: acts.silent, joins=True),
    "connect-reset": Kind("TCP connections that are reset at once", lambda: acts.connect_and_reset, joins=True),
    "garbage": Kind("random bytes in place of a request", acts.loop(os.urandom(frames.BUFFER_BYTES))),
    "slow": Kind("a byte of the request per second", lambda: acts.slow, joins=True),
    "404": Kind("requests for another path", acts.asking(first=NOT_FOUND), joins=True),
    "426": Kind("requests without an upgrade", acts.asking(without=b"Upgrade")),
    "400": Kind("requests with a wrong key", acts.asking(b"Sec-WebSocket-Key: x", without=b"Sec-WebSocket-Key")),
    "pipelined": Kind("many refused requests, one behind the other", acts.loop(request(LINES, NOT_FOUND) * 2000)),
    "origin": Kind("a web page of a foreign site", acts.asking(b"Origin: https://foreign.example")),
    "huge-headers": Kind("100 headers of 16 KB together", acts.asking(*[b"X: " + b"y" * 150] * 95)),
    "huge-line": Kind("a request line of 8 KB", acts.asking(first=b"GET /%s HTTP/1.1" % (b"a" * 8000))),
    "joins": Kind("complete handshakes, then a Close", acts.joining(), joins=True),
    "joins-reset": Kind("complete handshakes, then a RST", acts.joining(politely=False), joins=True),
    "joins-80": Kind("80 handshakes per second, one address", acts.joining(rate=80), connections=(16,), joins=True),
    "joins-80-4": Kind("the same from four addresses", acts.joining(rate=80), "ws", 4, (16,), joins=True),
    "joins-250": Kind("250 clients that join at once", lambda: acts.joining_at_once, connections=(250,), joins=True),
    "proxy-garbage": Kind("wrong PROXY headers", acts.loop(b"PROXY TCP9 x\r\n" * 1000), "proxy", joins=True),
    "proxy-long": Kind("PROXY headers that announce 64 KB", acts.loop(b"\r\n\r\n\0\r\nQUIT\n!\x11\xff\xff"), "proxy"),
    "passwords-10": Kind(
        "10 wrong passwords per second", acts.asking_with("Basic", True, 10), "login", MANY, (16,), True
    ),
    "passwords": Kind("wrong passwords from 100 addresses", acts.asking_with("Basic"), "login", MANY, joins=True),
    "tokens": Kind("wrong tokens from 100 addresses", acts.asking_with("Bearer", True), "login", MANY, joins=True),
    # Strangers who speak TLS.
    **{
        f"tls-{name}": Kind(about, act, "wss", joins=joins, connections=connections)
        for name, (about, act, joins, connections) in hostile_tls.KINDS.items()
    },
    # Tenants.
    "empty-pings": Kind("PINGs without payload", acts.frame(frames.PING)),
    "full-pings": Kind("PINGs of 125 bytes", acts.frame(frames.PING, bytes(125))),
    "empty-pongs": Kind("PONGs without payload", acts.frame(frames.PONG)),
    "full-pongs": Kind("PONGs of 125 bytes", acts.frame(frames.PONG, bytes(125))),
    "empty-fragments": Kind("messages of 4,000 empty fragments", acts.fragments(b"")),
    "byte-fragments": Kind("messages of 4,000 fragments of a byte", acts.fragments(b"x")),
    "empty-messages": Kind("BINARY messages without payload", acts.frame(frames.BINARY)),
    "runts": Kind("messages of 13 bytes, too short for a frame", acts.frame(frames.BINARY, bytes(13))),
    "frames-14": Kind("frames of 14 bytes", acts.frames_of(14)),
    "frames-60": Kind("frames of 60 bytes", acts.frames_of(60)),
    "frames-1514": Kind("frames of 1,514 bytes", acts.frames_of(1514)),
    "broadcast": Kind("broadcasts of 60 bytes", acts.frames_of(60, frames.ALL)),
    "new-sources": Kind("frames with ever new source addresses", acts.session(frames.new_sources)),
    "text": Kind("TEXT messages of 60 bytes", acts.frame(frames.TEXT, b"x" * 60)),
    "empty-text": Kind("TEXT messages without payload", acts.frame(frames.TEXT)),
    "long-text": Kind("TEXT messages of 60,000 bytes", acts.frame(frames.TEXT, b"\xc3\xa9" * 30_000)),
    "records-28": Kind(
        "the smallest records, in messages of 1 MB",
        acts.session(lambda: frames.many_records(frames.record(frames.ethernet(14)), 1_000_000), 2),
    ),
    "super-frames": Kind("super-frames with segments of 8 bytes", acts.session(frames.super_frames, 2)),
    "partial-checksums": Kind("datagrams with unfinished checksums", acts.session(frames.partial_checksums, 2)),
    "refused-frames": Kind("records that the kernel refuses", acts.session(frames.refused_by_the_kernel, 2)),
    "hoarding": Kind("100 sessions with unfinished messages of 1 MiB", acts.hoarding, connections=(HOARDERS,)),
    "byte-segments": Kind("frames in TCP segments of a byte", acts.byte_by_byte),
    "not-reading": Kind("PINGs and broadcasts from one who reads nothing", acts.not_reading),
    "frames-close": Kind(
        "100 frames and a Close, and again",
        acts.once(lambda: frames.repeated((frames.BINARY, frames.ethernet(60)), size=6_600) + frames.GOODBYE),
        joins=True,
    ),
    "wrong-record": Kind("20 records and a wrong one, and again", acts.once(frames.wrong_record, 2), joins=True),
}
