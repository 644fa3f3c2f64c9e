"""What a stranger or a tenant can do with TLS alone: KINDS, for hostile_kinds.py.

tls_records.py makes the records that no TLS library writes. They depend on the connection's keys, so most are made
before the attack: RECORDS_BYTES for all connections together. What is sent beyond is made during the attack.
"""

from __future__ import annotations

import itertools
import os
import random
import ssl
from collections.abc import Callable, Iterator

import gevent

from bench import tls_records
from bench.hostile_flood import Attack, reset
from bench.hostile_frames import BINARY, ethernet
from bench.raw_client import LINES, masked, request
from bench.tls_records import ALERT, CLIENT_HELLO, DATA, HANDSHAKE, KEY_UPDATE_REQUESTED, WARNING, RecordWriter

Act = Callable[[Attack, int], None]
#: Records without end.
Records = Iterator[bytes]

#: Bytes of records that are made before an attack, and bytes of one write.
RECORDS_BYTES, WRITE_BYTES = 6_000_000, 128 * 1024


def _records(make: Callable[[RecordWriter], Records], *, old: bool = False, inside: bool = False) -> Callable[[], Act]:
    """Do a handshake, and send records without end: at once, or with `inside` behind the 101."""

    def prepare() -> Act:
        tls = tls_records.context(old=old)

        def act(attack: Attack, number: int) -> None:
            with attack.connect(number, tls=False) as sock:
                writer = tls_records.writer(sock, tls)
                if inside:
                    # The answer cannot be read here. Whoever is refused notices by the end of TCP.
                    attack.send(sock, writer.record(DATA, request(LINES)))
                    sock.recv(4096)
                pieces = _pieces(make(writer))
                made = list(itertools.islice(pieces, RECORDS_BYTES // WRITE_BYTES // attack.connections))
                attack.ready()
                for piece in itertools.chain(made, pieces):
                    attack.send(sock, piece)

        return act

    return prepare


def _pieces(records: Records) -> Iterator[bytes]:
    """Join the records to pieces of WRITE_BYTES; other connections have their turn between two of them."""
    while True:
        piece = bytearray()
        while len(piece) < WRITE_BYTES:
            piece += next(records)
        yield bytes(piece)
        gevent.sleep(0)


def _updates(writer: RecordWriter) -> Records:
    while True:
        yield writer.key_update()


def _requested_updates(writer: RecordWriter) -> Records:
    while True:
        yield writer.key_update(KEY_UPDATE_REQUESTED)


def _same(kind: int, content: bytes, padding: int = 0) -> Callable[[RecordWriter], Records]:
    def records(writer: RecordWriter) -> Records:
        while True:
            yield writer.record(kind, content, padding)

    return records


def _frames_by_the_byte(writer: RecordWriter) -> Records:
    data = masked(random.Random(3), BINARY, ethernet(14))
    while True:
        for byte in data:
            yield writer.record(DATA, bytes([byte]))


def _updates_between_frames(writer: RecordWriter) -> Records:
    """Thirty updates, then a frame: what counts empty records begins anew each time."""
    data = masked(random.Random(3), BINARY, ethernet(14))
    while True:
        for _ in range(30):
            yield writer.key_update()
        yield writer.record(DATA, data)


def _handshakes() -> Act:
    def act(attack: Attack, number: int) -> None:
        with attack.connect(number, tls=True):
            attack.answered += 1
            attack.ready()

    return act


def _hello(size: int = 0) -> bytes:
    """Return the ClientHello that OpenSSL sends, with an extension of zeros of that many bytes (padding, RFC 7685)."""
    outgoing = ssl.MemoryBIO()
    connection = tls_records.context().wrap_bio(ssl.MemoryBIO(), outgoing)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        hello = outgoing.read()[9:]
    if size:
        # Version, random number, session, ciphers and compression methods come before the extensions.
        at = 34
        for width in (1, 2, 1):
            at += width + int.from_bytes(hello[at : at + width], "big")
        extensions = hello[at + 2 :] + b"\0\x15" + size.to_bytes(2, "big") + bytes(size)
        hello = hello[:at] + len(extensions).to_bytes(2, "big") + extensions
    message = b"\1" + len(hello).to_bytes(3, "big") + hello
    pieces = [message[at : at + 16_384] for at in range(0, len(message), 16_384)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def _hellos(size: int = 0) -> Callable[[], Act]:
    """Send a ClientHello, wait for the answer, and reset: half of a handshake, but the server's signature."""

    def prepare() -> Act:
        hello = _hello(size)

        def act(attack: Attack, number: int) -> None:
            with attack.connect(number, tls=False) as sock:
                attack.ready()
                attack.ask(sock, hello)
                reset(sock)

        return act

    return prepare


def _garbage() -> Act:
    data = b"".join(b"\x17\x03\x03\x40\x00" + os.urandom(16_384) for _ in range(8))

    def act(attack: Attack, number: int) -> None:
        with attack.connect(number, tls=False) as sock:
            tls_records.writer(sock, garbage_context)
            attack.flood(sock, data)

    garbage_context = tls_records.context()
    return act


#: By name: what it is, its act, whether honest clients try to join meanwhile, and its numbers of connections.
KINDS: dict[str, tuple[str, Callable[[], Act], bool, tuple[int, ...]]] = {
    "key-updates": ("KeyUpdates without end, before the request", _records(_updates), True, ()),
    "key-updates-asked": ("the same, each asks for an answer", _records(_requested_updates), True, ()),
    "key-updates-session": ("KeyUpdates behind the 101", _records(_updates, inside=True), False, ()),
    "key-updates-frames": (
        "30 KeyUpdates, a frame, and again",
        _records(_updates_between_frames, inside=True),
        False,
        (),
    ),
    "empty-records": ("records without data", _records(_same(DATA, b"")), False, ()),
    "padded-records": ("records of 16 KB of padding", _records(_same(DATA, b"", 16_000)), False, ()),
    "old-empty-records": ("records without data, TLS 1.2", _records(_same(DATA, b""), old=True), False, ()),
    "renegotiation": ("wishes to renegotiate, TLS 1.2", _records(_same(HANDSHAKE, CLIENT_HELLO), old=True), True, ()),
    "renegotiation-session": (
        "the same behind the 101",
        _records(_same(HANDSHAKE, CLIENT_HELLO), old=True, inside=True),
        False,
        (),
    ),
    "warnings": ("alerts that are only warnings", _records(_same(ALERT, WARNING)), False, ()),
    "old-warnings": ("the same, TLS 1.2", _records(_same(ALERT, WARNING), old=True), False, ()),
    "byte-records": ("frames in records of a byte", _records(_frames_by_the_byte, inside=True), False, ()),
    "handshakes": ("complete TLS handshakes", _handshakes, True, ()),
    "hellos": ("TLS handshakes up to the server's answer", _hellos(), True, ()),
    "large-hellos": ("the same with a ClientHello of 60 KB", _hellos(60_000), True, ()),
    "garbage": ("records that cannot be decrypted", _garbage, False, ()),
}
