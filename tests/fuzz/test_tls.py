"""TLS records on their way, changed, cut, doubled or swapped: both ends of TlsStream, with TLS 1.2 and 1.3.

The peer is OpenSSL. Whatever happens to its records, what TlsStream delivers is the beginning of what the peer sent,
and there is an end: an error of TLS, or the peer's close_notify.
"""

from __future__ import annotations

import ssl
from collections import deque
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.tunnel.tls import TlsStream
from etherws.tunnel.wire import Buffer, buffer
from tests.lab.pki import Certificate
from tests.lab.streams import FakeSocket

#: Reads after which a stream that has no more bytes is one that never ends.
READS_MAX = 1_000
NAME = "localhost"


class Contexts(NamedTuple):
    """Of both ends."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def contexts(certificate: Certificate) -> dict[str, Contexts]:
    """By the version of TLS."""
    found = {}
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate.cert, certificate.key)
        client = ssl.create_default_context(cafile=str(certificate.cert))
        # It is no authority's.
        client.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        for context in (server, client):
            context.minimum_version = context.maximum_version = version
        found[version.name] = Contexts(server, client)
    return found


class Change(NamedTuple):
    """What is done to the record of this number, counted from 0 over the whole connection."""

    number: int
    how: str
    at: int
    value: int


changes = st.lists(
    st.builds(
        Change,
        st.integers(0, 12),
        st.sampled_from(["flip", "cut", "grow", "twice", "drop", "swap", "insert", "length", "type", "end"]),
        st.integers(0, 600),
        st.integers(1, 255),
    ),
    max_size=2,
)

#: A record that TLS 1.3 ignores in a handshake, an alert in clear, and what is none at all.
INSERTED = [
    b"\x14\x03\x03\0\1\1",
    b"\x15\x03\x03\0\2\1\0",
    b"\x17\x03\x03\0\0",
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x03\0\0",
]


def changed(record: bytes, change: Change) -> list[bytes]:
    """What comes in place of a record."""
    data = bytearray(record)
    if not data:
        # Another change has cut all of it off.
        return []
    at = change.at % len(data)
    if change.how == "flip":
        data[at] ^= change.value
    elif change.how == "cut":
        del data[at:]
    elif change.how == "grow":
        data[at:at] = bytes([change.value])
    elif change.how == "length":
        data[3:5] = (int.from_bytes(data[3:5], "big") ^ change.value << change.at % 8).to_bytes(2, "big")
    elif change.how == "type":
        data[0] = change.value
    elif change.how == "twice":
        return [record, record]
    elif change.how == "insert":
        return [INSERTED[change.value % len(INSERTED)], record]
    elif change.how in ("drop", "end"):
        return []
    return [bytes(data)]


class Peer:
    """OpenSSL at the other end, and the stream below TlsStream: what one sends is what the other receives, changed."""

    def __init__(self, context: ssl.SSLContext, data: list[bytes], changes: list[Change], *, server: bool) -> None:
        self.tcp: Any = FakeSocket()
        self.drained, self.reads = True, 0
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server, server_hostname=None if server else NAME
        )
        self._data, self._changes, self._count = deque(data), changes, 0
        self._wire, self._held = deque[bytes](), b""
        self._shaken = self._ended = self.said_goodbye = False

    def readable(self) -> Any:
        """See Stream."""

    writable = readable

    def write(self, encoded: Any) -> int:
        """See Stream."""
        raise NotImplementedError

    def rest(self) -> None:
        """See Stream."""

    def take(self, size: int) -> bytes:
        """See Stream."""
        raise NotImplementedError

    def close(self) -> None:
        """See Stream."""

    def shutdown(self, how: int) -> None:
        """See Stream."""

    def recv(self, size: int) -> bytes:
        """See Stream."""
        raise NotImplementedError

    def encode(self, buffers: Any) -> Any:
        """See Stream."""
        return buffers

    def sendall(self, data: Buffer) -> None:
        """See Stream."""
        self._incoming.write(data)

    def recv_into(self, space: Buffer) -> int:
        """See Stream. The peer takes a step when nothing is left of its last one."""
        self.reads += 1
        assert self.reads < READS_MAX, "it reads for ever"
        while not self._wire and not self._ended:
            self._step()
        if not self._wire:
            return 0
        piece = self._wire.popleft()
        memoryview(space)[: len(piece)] = piece
        return len(piece)

    def tls_version(self) -> None:
        """There is none below."""

    def unread(self) -> int:
        """See Stream."""
        return sum(map(len, self._wire))

    def _step(self) -> None:
        try:
            if not self._shaken:
                self._tls.do_handshake()
                self._shaken = True
            elif self._data:
                self._tls.write(self._data.popleft())
            else:
                self.said_goodbye = True
                self._ended = True
                self._tls.unwrap()
        except ssl.SSLWantReadError:
            # The other end has said all that it will say before it gets more.
            self._ended |= not self._outgoing.pending
        except ssl.SSLError:
            self._ended = True
        self._send(self._outgoing.read())

    def _send(self, data: bytes) -> None:
        while data:
            size = 5 + int.from_bytes(data[3:5], "big")
            record, data = data[:size], data[size:]
            pieces = [record]
            for change in self._changes:
                if change.number == self._count:
                    if change.how == "swap":
                        self._held, pieces = record, []
                    else:
                        pieces = [new for piece in pieces for new in changed(piece, change)]
                    self._ended |= change.how == "end"
            if self._held and pieces:
                pieces, self._held = [*pieces, self._held], b""
            self._count += 1
            self._wire += [piece for piece in pieces if piece]


@given(
    st.sampled_from(["TLSv1_2", "TLSv1_3"]),
    st.booleans(),
    st.lists(st.binary(min_size=1, max_size=60) | st.just(bytes(40_000)), max_size=4),
    changes,
    st.sampled_from([1, 7, 1000, 256 * 1024]),
)
def test_changed_records_deliver_the_beginning_of_what_was_sent(
    contexts: dict[str, Contexts], version: str, server: bool, data: list[bytes], changes: list[Change], room: int
) -> None:
    both = contexts[version]
    peer = Peer(both.client if server else both.server, data, changes, server=not server)
    stream = TlsStream(peer, both.server if server else both.client, server_hostname=None if server else NAME)
    sent, found, space = b"".join(data), bytearray(), buffer(room)
    try:
        stream.do_handshake()
        for _ in range(len(sent) + READS_MAX):
            size = stream.recv_into(space)
            found += space[:size]
            if not size:
                # Only the peer can say this, and it says it last.
                assert peer.said_goodbye
                assert bytes(found) == sent
                return
        raise AssertionError("it never ends")
    except ssl.SSLError:
        assert changes
    assert sent.startswith(found)


@given(st.booleans(), st.binary(max_size=200) | st.sampled_from(INSERTED), st.sampled_from(["TLSv1_2", "TLSv1_3"]))
def test_any_bytes_end_the_handshake(contexts: dict[str, Contexts], server: bool, data: bytes, version: str) -> None:
    both = contexts[version]
    peer = Peer(both.client if server else both.server, [], [], server=not server)
    peer._wire.append(data)
    peer._ended = True
    if not data:
        peer._wire.clear()
    stream = TlsStream(peer, both.server if server else both.client, server_hostname=None if server else NAME)
    with pytest.raises(ssl.SSLError):
        stream.do_handshake()
