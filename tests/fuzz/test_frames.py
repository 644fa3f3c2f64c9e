"""WebSocket frames: our decoder against the websockets library's, and a whole connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import gevent
from hypothesis import given
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from etherws.close_codes import parse_close
from etherws.errors import ProtocolError
from etherws.settings import DeviceSettings
from etherws.tunnel.connection import Connection
from etherws.tunnel.frames import Decoder, Opcode
from etherws.tunnel.session import Session
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.wire import Version1
from tests.lab.fuzz import MAX, conversation, cuts, pieces, sides_and_streams
from tests.lab.hosts import PATIENCE
from tests.lab.websocket import feed

BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT = (
    Opcode[name] for name in ("BINARY", "CLOSE", "CONTINUATION", "PING", "PONG", "TEXT")
)

Events = list[tuple[int, bytes]]


def ours(data: bytes, server: bool, cuts: Iterable[int] = ()) -> tuple[Events, ProtocolError | None]:
    """What our decoder makes of the stream, up to a Close or the first mistake."""
    decoder, events = Decoder(server=server, max_message=MAX), Events()
    error = None
    try:
        for piece in pieces(data, cuts):
            events += feed(decoder, piece)
        error = decoder.error
    except ProtocolError as exc:
        error = exc
    for at, (opcode, payload) in enumerate(events):
        if opcode == CLOSE:
            # What comes behind it is for tunnel/connection.py to leave alone.
            try:
                parse_close(payload)
            except ProtocolError as exc:
                return events[:at], exc
            return events[: at + 1], None
    return events, error


def theirs(data: bytes, server: bool) -> tuple[Events, int | None]:
    """What the websockets library makes of it: messages and control frames, and the code with which it fails."""
    protocol: Any = (
        ServerProtocol(state=OPEN, max_size=MAX)
        if server
        else ClientProtocol(parse_uri("ws://x/"), state=OPEN, max_size=MAX)
    )
    protocol.receive_data(data)
    events = Events()
    kind, parts = int(BINARY), [b""]
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        opcode, payload = int(event.opcode), bytes(event.data)
        if opcode not in (CONTINUATION, TEXT, BINARY):
            events.append((opcode, payload))
            continue
        if opcode != CONTINUATION:
            kind, parts = opcode, []
        parts.append(payload)
        if event.fin:
            events.append((kind, b"".join(parts)))
    return events, protocol.close_sent.code if protocol.parser_exc else None


#: What we refuse and the library takes, or sees only when the frame is whole, or behind another mistake in it.
STRICTER = ("shortest form", "not UTF-8", "over 125 bytes", "reserved bit", "fragmented control", "close code")


@given(sides_and_streams)
def test_frames_are_read_as_by_the_websockets_library(side_and_stream: tuple[bool, bytes]) -> None:
    server, data = side_and_stream
    events, error = ours(data, server)
    expected, code = theirs(data, server)
    if error and (code != error.code or len(events) < len(expected)):
        assert any(words in str(error) for words in STRICTER), (error, code)
        assert events == expected[: len(events)]
    elif code and not error:
        # It refuses a Close inside a fragmented message, and counts control frames into that message. Section 5.4
        # lets them in.
        assert code == 1009 or events[-1][0] == CLOSE
        assert events[: len(expected)] == expected
    else:
        assert events == expected


@given(sides_and_streams, cuts)
def test_frames_are_read_alike_in_whatever_pieces_they_come(
    side_and_stream: tuple[bool, bytes], cuts: list[int]
) -> None:
    server, data = side_and_stream
    events, error = ours(data, server)
    for where in (cuts, range(1, len(data))):
        again, same = ours(data, server, where)
        assert again == events
        assert (same and (same.code, str(same))) == (error and (error.code, str(error)))


class Sink:
    """In the TAP's place: takes everything, gives nothing."""

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()

    def begin(self, *, offload: bool, joining: bool = False) -> None:
        """Nothing to prepare."""

    def start_carrier_timeout(self, timeout: float) -> None:
        """It has no carrier to lose."""

    def on_readable(self, call: object) -> None:
        """Nothing comes."""

    def quiet(self, seconds: float) -> bool:
        """Never: see Tap."""
        return False

    def read_batch(self, batch: object, first: object = None) -> None:
        """Wait for ever."""
        gevent.sleep(10 * PATIENCE)

    def write_batch(self, packets: object) -> None:
        """Take them."""


class Wire(Version1):
    """The first version, for short messages."""

    max_message = MAX


@given(sides_and_streams, cuts)
def test_a_link_answers_pings_and_tells_why_it_ends(side_and_stream: tuple[bool, bytes], cuts: list[int]) -> None:
    server, data = side_and_stream
    events, error = ours(data, server)
    device: Any = Sink()

    def serve(sock: Any) -> None:
        session = Session(
            device, Connection(PlainStream(sock), server=server, wire=Wire()), DeviceSettings(ping_interval=0)
        )
        session.close(session.run())

    answer = feed(Decoder(server=not server, max_message=MAX), conversation(pieces(data, cuts), serve))
    *pongs, (last, closing) = answer
    # Its own code back, or that of the mistake; and none when TCP ended without a word.
    code = error.code if error else parse_close(events[-1][1])[0] if events and events[-1][0] == CLOSE else None
    assert (last, parse_close(closing)[0]) == (CLOSE, code)
    # Of several pings that come together, the last is answered.
    pings = [(PONG, payload) for opcode, payload in events if opcode == PING]
    assert pongs[-1:] == pings[-1:]
    left = iter(pings)
    assert all(any(ping == pong for ping in left) for pong in pongs)
