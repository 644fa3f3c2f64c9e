"""Messages <-> bytes: the framing of RFC 6455, section 5, for both ends.

Pure: bytes in, messages out, and the reverse; connection.py does the input and output. The decoder parses in place in
one buffer that it owns, checks every declared length before it waits for a byte of the payload, and turns each
broken rule into a ProtocolError with the close code that the peer is due.
"""

from __future__ import annotations

import codecs
import os
import struct
from collections.abc import Sequence
from functools import lru_cache

from websockets.speedups import apply_mask

from etherws.errors import ProtocolError
from etherws.tunnel.wire import Buffer, buffer

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

FIN = 0x80
MASKED = 0x80

#: Close codes (RFC 6455, section 7.4.1).
NORMAL, GOING_AWAY, PROTOCOL_ERROR, INVALID_DATA, POLICY_VIOLATION, TOO_BIG = 1000, 1001, 1002, 1007, 1008, 1009
INTERNAL_ERROR = 1011

#: What a control frame may carry (section 5.5).
CONTROL_MAX = 125

#: 2 bytes, 8 of length, 4 of key (section 5.2).
HEADER_MAX = 14

#: Bytes asked of the socket at once. A peer that sends 64 KiB of empty frames takes 10 ms to parse, in which the
#: others wait.
READ_BYTES = 256 * 1024

#: Bytes of masking keys that are fetched at once.
KEYS_BYTES = 512

#: The first two bytes say everything about a frame's kind; these are the legal first ones.
_LEGAL_FIRST = frozenset(
    [FIN | op for op in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)] + [CONTINUATION, TEXT, BINARY]
)

_LENGTH_16 = struct.Struct(">H")
_LENGTH_64 = struct.Struct(">Q")
_HEADER_16 = struct.Struct(">BBH")
_HEADER_64 = struct.Struct(">BBQ")


@lru_cache(maxsize=2048)
def header(opcode: int, length: int, mask: int = 0) -> bytes:
    """The bytes before an unfragmented frame's key and payload; `mask` is MASKED or 0."""
    if length < 126:
        return bytes((FIN | opcode, mask | length))
    if length < 65_536:
        return _HEADER_16.pack(FIN | opcode, mask | 126, length)
    return _HEADER_64.pack(FIN | opcode, mask | 127, length)


class Encoder:
    """Turns messages into bytes for the wire; a client's are masked with fresh random keys (section 5.3)."""

    def __init__(self, *, server: bool) -> None:
        self._server = server
        self._keys = b""

    def data(self, messages: Sequence[Buffer]) -> list[Buffer]:
        """Buffers that, sent in order, are one unfragmented BINARY frame per message."""
        out: list[Buffer] = []
        if self._server:
            for message in messages:
                out.append(header(BINARY, len(message)))
                out.append(message)
            return out
        keys = self._fresh(len(messages))
        for at, message in enumerate(messages):
            key = keys[4 * at : 4 * at + 4]
            out.append(header(BINARY, len(message), MASKED) + key)
            out.append(apply_mask(message, key))
        return out

    def control(self, opcode: int, payload: Buffer = b"") -> bytes:
        """One control frame; `payload` has CONTROL_MAX bytes at most."""
        if len(payload) > CONTROL_MAX:
            raise ValueError(f"a control frame carries {CONTROL_MAX} bytes at most, not {len(payload)}")
        if self._server:
            return header(opcode, len(payload)) + bytes(payload)
        key = self._fresh(1)
        return header(opcode, len(payload), MASKED) + key + bytes(apply_mask(payload, key))

    def _fresh(self, count: int) -> bytes:
        """So many masking keys from the kernel's generator, each to be used once."""
        # Fetched ahead: for a single small frame the call costs as much as all the rest.
        if len(self._keys) < 4 * count:
            self._keys = os.urandom(max(4 * count, KEYS_BYTES))
        keys, self._keys = self._keys[: 4 * count], self._keys[4 * count :]
        return keys

    def close(self, code: int | None = None, reason: str = "") -> bytes:
        """A Close frame; without a code it is empty. The reason is cut to fit, at a character's boundary."""
        if code is None:
            return self.control(CLOSE)
        text = reason.encode()[: CONTROL_MAX - 2].decode(errors="ignore").encode()
        return self.control(CLOSE, code.to_bytes(2, "big") + text)


class Decoder:
    """Turns the peer's bytes into messages and control frames.

    In turn: put bytes into `space()`, say how many by `received()`, use what that returns, and only then ask for
    space again: messages may be views of the buffer. `max_message` bounds a message, whole or in fragments.
    """

    def __init__(self, *, server: bool, max_message: int) -> None:
        self._masked = MASKED if server else 0
        self._max = self._left = max_message
        self._view = buffer(max_message + HEADER_MAX + READ_BYTES)
        self._begin = self._end = 0
        self._fragments: bytearray | None = None
        self._fragmented = BINARY
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._checked = 0
        #: The peer's first mistake, once it is found.
        self.error: ProtocolError | None = None

    def space(self) -> memoryview:
        """Where the next bytes go; never empty. What received() returned before is no longer valid."""
        begin, end = self._begin, self._end
        # Half a message is moved to the front only for want of room: it may be long.
        if begin == end or len(self._view) - end < READ_BYTES:
            self._view[: end - begin] = self._view[begin:end]
            self._begin, self._end = 0, end - begin
        return self._view[self._end : self._end + READ_BYTES]

    def received(self, size: int) -> list[tuple[int, Buffer]]:
        """Take `size` bytes from the space; return the (opcode, payload) of each message and control frame.

        Raises ProtocolError at the peer's first mistake, but not before what came ahead of it was returned: then
        the next call raises. No more bytes need be waited for: `error` is set.
        """
        if self.error:
            raise self.error
        self._end += size
        events: list[tuple[int, Buffer]] = []
        try:
            self._parse(events)
        except ProtocolError as exc:
            self.error = exc
            if not events:
                raise
        return events

    def _parse(self, events: list[tuple[int, Buffer]]) -> None:
        view, begin, end, masked = self._view, self._begin, self._end, self._masked
        while end - begin >= 2:
            first, second = view[begin], view[begin + 1]
            if first not in _LEGAL_FIRST:
                raise ProtocolError(PROTOCOL_ERROR, _what_is_illegal(first))
            if second & MASKED != masked:
                raise ProtocolError(PROTOCOL_ERROR, "unmasked frame" if masked else "masked frame from the server")
            length, at = second & 0x7F, begin + 2
            if length > 125:
                if first & 0x8:
                    raise ProtocolError(PROTOCOL_ERROR, "control frame of over 125 bytes")
                form, least = (_LENGTH_16, 126) if length == 126 else (_LENGTH_64, 65_536)
                if end - at < form.size:
                    break
                (length,) = form.unpack_from(view, at)
                if length < least or length >> 63:
                    raise ProtocolError(PROTOCOL_ERROR, "length not in its shortest form")
                at += form.size
            if length > self._left and not first & 0x8:
                kind = "message" if self._fragments is None else "fragment"
                raise ProtocolError(TOO_BIG, f"{kind} of {length} bytes; {self._left} are taken at most")
            payload_at = at + 4 if masked else at
            stop = payload_at + length
            if stop > end:
                if first & 0xF != BINARY:
                    self._look_ahead(first, bytes(view[at:payload_at]), view[payload_at:end])
                break
            payload: Buffer = view[payload_at:stop]
            if masked:
                payload = apply_mask(payload, bytes(view[at:payload_at]))
            if first == FIN | BINARY and self._fragments is None:
                events.append((BINARY, payload))
            else:
                self._event(first, payload, events)
            begin = self._begin = stop

    def _event(self, first: int, payload: Buffer, events: list[tuple[int, Buffer]]) -> None:
        """Everything but the usual unfragmented BINARY frame."""
        opcode = first & 0xF
        if opcode & 0x8:
            events.append((opcode, bytes(payload)))
            return
        if opcode != CONTINUATION:
            if self._fragments is not None:
                raise ProtocolError(PROTOCOL_ERROR, "new message inside a fragmented one")
            self._fragments, self._fragmented = bytearray(), opcode
        elif self._fragments is None:
            raise ProtocolError(PROTOCOL_ERROR, "continuation of no message")
        self._fragments += payload
        self._left -= len(payload)
        if self._fragmented == TEXT:
            self._check(payload[self._checked :], bool(first & FIN))
            self._checked = 0
        if first & FIN:
            message, self._fragments, self._left = bytes(self._fragments), None, self._max
            events.append((self._fragmented, message))

    def _look_ahead(self, first: int, key: bytes, arrived: memoryview) -> None:
        """Check text in a frame of which more is to come: what cannot become UTF-8 is not waited for (section 8.1)."""
        opcode = first & 0xF
        text = opcode == TEXT if self._fragments is None else opcode == CONTINUATION and self._fragmented == TEXT
        if text and len(arrived) > self._checked:
            turn = self._checked % 4
            fresh: Buffer = arrived[self._checked :]
            self._check(apply_mask(fresh, key[turn:] + key[:turn]) if key else fresh, False)
            self._checked = len(arrived)

    def _check(self, text: Buffer, last: bool) -> None:
        try:
            self._utf8.decode(text, last)
        except UnicodeDecodeError:
            raise ProtocolError(INVALID_DATA, "text that is not UTF-8") from None


def parse_close(payload: Buffer) -> tuple[int | None, str]:
    """The code and reason in a Close frame's payload; raises ProtocolError when they are illegal (section 5.5.1)."""
    if len(payload) == 0:
        return None, ""
    if len(payload) == 1:
        raise ProtocolError(PROTOCOL_ERROR, "Close frame of one byte")
    code = int.from_bytes(payload[:2], "big")
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise ProtocolError(PROTOCOL_ERROR, f"close code {code}")
    return code, _utf8(payload[2:])


def _utf8(data: Buffer) -> str:
    try:
        return bytes(data).decode()
    except UnicodeDecodeError:
        raise ProtocolError(INVALID_DATA, "text that is not UTF-8") from None


def _what_is_illegal(first: int) -> str:
    if first & 0x70:
        return "reserved bit set, but no extension was agreed"
    opcode = first & 0xF
    return "fragmented control frame" if opcode in (CLOSE, PING, PONG) else f"reserved opcode {opcode:#x}"
