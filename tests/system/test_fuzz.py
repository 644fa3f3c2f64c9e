"""What strangers may send, by hypothesis: every parser of it against another that does the same more slowly.

`make test` tries some hundred inputs each, `make fuzz` a hundred times as many.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.pywsgi import WSGIServer
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from etherws.errors import ProtocolError
from etherws.server.http import UPGRADE, Handler
from etherws.settings import DeviceSettings, ServerSettings
from etherws.tunnel.connection import Connection
from etherws.tunnel.frames import Decoder, Opcode, parse_close
from etherws.tunnel.session import Session
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.wire import Version1, Version2
from etherws.wsgi import Application
from tests.lab.hosts import PATIENCE
from tests.lab.peer import GOOD
from tests.lab.websocket import feed, frame

MAX = 1_000

BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT = (
    Opcode[name] for name in ("BINARY", "CLOSE", "CONTINUATION", "PING", "PONG", "TEXT")
)

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

Events = list[tuple[int, bytes]]


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The data, cut."""
    edges = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


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

    def begin(self, *, offload: bool) -> None:
        """Nothing to prepare."""

    def start_carrier_timeout(self, timeout: float) -> None:
        """It has no carrier to lose."""

    def read_batch(self, batch: object) -> None:
        """Wait for ever."""
        gevent.sleep(10 * PATIENCE)

    def write_batch(self, packets: object) -> None:
        """Take them."""


def conversation(pieces: Iterable[bytes], serve: Callable[[Any], object]) -> bytes:
    """What comes back from `serve`, which is given a socket, for these pieces and the end of TCP."""
    near, far = socket.socketpair()
    with near, far, gevent.Timeout(PATIENCE):
        serving = gevent.spawn(serve, far)
        answer = bytearray()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                near.sendall(piece)
                # Lets the other greenlet read it.
                gevent.sleep(0)
            near.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while more := near.recv(65536):
                answer += more
        serving.get()
    return bytes(answer)


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
    assert pongs == [(PONG, payload) for opcode, payload in events if opcode == PING]


class Gate(Application):
    """Lets clients in and sends back what came behind the request, instead of giving them a TAP."""

    def _tunnel(self, environ: dict[str, Any], headers: list[tuple[str, str]], *_: Any) -> Iterable[bytes]:
        sock, early = environ[UPGRADE](headers)
        sock.sendall(early)
        return []


@pytest.fixture(scope="module")
def http() -> Iterator[Callable[[Any], object]]:
    """What a server does with a connection, without a port to come to. Nothing may end in a traceback."""
    server = WSGIServer(("127.0.0.1", 0), Gate(ServerSettings()), handler_class=Handler, log=None)
    hub = gevent.get_hub()
    before, hub.exception_stream = hub.exception_stream, io.StringIO()
    try:
        yield lambda sock: server.handle(sock, ("192.0.2.1", 1))  # type: ignore[arg-type]
        assert hub.exception_stream.getvalue() == ""
    finally:
        hub.exception_stream = before


def decorated(name: str, upper: bool, blanks: str) -> Callable[[str], str]:
    """A header line in one of its dresses."""
    return lambda value: f"{name.upper() if upper else name.lower()}:{blanks}{value}{blanks}"


names = st.text("abcdefghijklmnopqrstuvwxyz-0123456789!#$%&'*+.^`|~", min_size=1, max_size=12).map("x-".__add__)
values = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=30)
blanks = st.sampled_from(["", " ", "\t", "  "])


@given(
    dresses=st.lists(st.tuples(st.booleans(), blanks), min_size=len(GOOD), max_size=len(GOOD)),
    more=st.lists(st.tuples(names, values), max_size=5),
    order=st.randoms(use_true_random=False),
    early=st.binary(max_size=300),
    cuts=cuts,
)
def test_a_proper_request_is_let_in_whatever_its_dress(
    http: Callable[[Any], object],
    dresses: list[tuple[bool, str]],
    more: list[tuple[str, str]],
    order: Any,
    early: bytes,
    cuts: list[int],
) -> None:
    lines = [decorated(name, *dress)(value) for (name, value), dress in zip(GOOD.items(), dresses, strict=True)]
    lines += [f"{name}: {value}" for name, value in more]
    order.shuffle(lines)
    head = "\r\n".join(["GET / HTTP/1.1", *lines, "", ""]).encode("latin-1")
    answer = conversation([*pieces(head, cuts)[:-1], pieces(head, cuts)[-1] + early], http)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert answer.partition(b"\r\n\r\n")[2] == early


lines = st.one_of(
    st.sampled_from([f"{name}: {value}\r\n".encode() for name, value in GOOD.items()]),
    st.builds(
        lambda name, value, end: name.encode() + b":" + value + end,
        st.sampled_from([*GOOD, "Content-Length", "Transfer-Encoding", "Expect", "X"]),
        st.sampled_from([b"websocket", b" upgrade", b"13", b"0", b"5", b"+5", b"chunked", b"100-continue", b""])
        | st.binary(max_size=20),
        st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r", b""]),
    ),
    st.binary(max_size=20),
)
firsts = st.sampled_from([b"GET / HTTP/1.1\r\n"] * 6 + [b"POST / HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"GET /\r\n"])
right = st.just([f"{name}: {value}\r\n".encode() for name, value in GOOD.items()])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request with a few wrong things in it: lines more, less or changed, a byte changed, cut short."""
    head = draw(right)
    for at, line in draw(st.lists(st.tuples(st.integers(0, len(GOOD)), lines), max_size=3)):
        head = [*head[:at], line, *head[at + draw(st.integers(0, 1)) :]]
    data = bytearray(draw(firsts | st.binary(max_size=30)) + b"".join(head) + b"\r\n")
    at = draw(st.integers(0, len(data)))
    if draw(st.booleans()):
        data[at : at + draw(st.integers(0, 1))] = draw(st.binary(max_size=1))
    elif draw(st.booleans()):
        del data[at:]
    return bytes(data)


@given(data=requests() | st.binary(max_size=200), cuts=cuts)
@example(data=b"", cuts=[])
@example(data=b"\r\n" * 50, cuts=[])
def test_any_request_is_let_in_by_right_or_refused_with_a_word(
    http: Callable[[Any], object], data: bytes, cuts: list[int]
) -> None:
    answer = conversation(pieces(data, cuts), http)
    if not answer.startswith(b"HTTP/1.1 101 "):
        # None at all to half a request, since TCP's end came instead of the rest.
        assert not answer or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"HTTP/1.1 405 ", b"HTTP/1.1 426 "))
        return
    library = ServerProtocol()
    library.receive_data(data)
    request = library.events_received()[0]
    assert isinstance(request, Request)
    assert data.startswith(b"GET / HTTP/1.1\r\n")
    assert len(request.headers.get_all("Host")) == 1
    # Of these it takes no list with anything odd in it.
    for name, token in (("Upgrade", "websocket"), ("Connection", "upgrade")):
        assert token in re.split("[ \t]*,[ \t]*", ",".join(request.headers.get_all(name)).lower().strip(" \t"))
        del request.headers[name]
        request.headers[name] = token
    library_answer = library.accept(request)
    assert library_answer.status_code == 101, library_answer.body
    assert f"Sec-WebSocket-Accept: {library_answer.headers['Sec-WebSocket-Accept']}\r\n".encode() in answer


def number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def records(message: bytes) -> list[bytes] | int:
    """The packets in a message by docs/wire.rst, read sentence by sentence; or the close code of the first mistake."""
    packets = []
    while message:
        if len(message) < 4 + 24:
            return 1002
        length = int.from_bytes(message[:4], "big")
        if length > 65_568:
            return 1009
        packet, message = message[4 : 4 + length], message[4 + length :]
        if length < 24 or len(packet) < length:
            return 1002
        flags, gso_type, frame = packet[0], packet[1], packet[10:]
        hdr_len, gso_size, csum_start, csum_offset = (number(packet[at : at + 2]) for at in (2, 4, 6, 8))
        if flags not in (0, 1, 2, 3) or (flags in (1, 3) and csum_start + csum_offset + 1 >= len(frame)):
            return 1002
        if gso_type not in (0, 1, 4, 0x81, 0x84) or (gso_type and (gso_size < 8 or hdr_len > len(frame))):
            return 1002
        packets.append(packet)
    return packets


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Records, mostly right."""
    message = b""
    small = st.integers(0, 90) | st.sampled_from([1448, 0xFFFF])
    for _ in range(draw(st.integers(0, 5))):
        packet = bytes([draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 0xFF]))])
        packet += bytes([draw(st.sampled_from([0, 0, 0, 1, 4, 0x81, 0x84, 0x80, 3, 5]))])
        packet += b"".join(draw(small).to_bytes(2, "little") for _ in range(4))
        packet += bytes(draw(st.sampled_from([14, 14, 60, 60, 90, 13, 0, 65_558, 65_559])))
        off = draw(st.sampled_from([0] * 12 + [1, -1, 70_000]))
        message += max(0, len(packet) + off).to_bytes(4, "big") + packet
    at = draw(st.integers(0, len(message)))
    return draw(st.sampled_from([message, message, message, message[:at], message + bytes(at % 40)]))


@given(messages() | st.binary(max_size=100))
def test_records_are_read_as_the_specification_says(message: bytes) -> None:
    expected = records(message)
    try:
        found = [bytes(packet) for packet in Version2().unpack([message])]
    except ProtocolError as exc:
        assert exc.code == expected
    else:
        assert found == expected
