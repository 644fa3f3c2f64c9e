"""WebSocket messages <-> bytes: the framing of RFC 6455, section 5, for both ends.

Pure: bytes in, messages out, and the reverse. sender.py and receiver.py do the input and output; wire.py says what a
message holds. The decoder parses in place, in one buffer that it owns. It checks each declared length before it waits
for the payload. Each broken rule becomes a ProtocolError with the close code for the peer.
"""

from __future__ import annotations

import codecs
import mmap
import os
import struct
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache

from websockets.speedups import apply_mask

from etherws.close_codes import CloseCode
from etherws.errors import ProtocolError
from etherws.tunnel.wire import Buffer, anonymous_memory


class Opcode(IntEnum):
    """What a frame is (RFC 6455, section 5.2)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


#: Bits of a frame's first byte: the last frame of a message, reserved, and a control frame by its opcode.
FIN, RESERVED_BITS, CONTROL = 0x80, 0x70, 0x08
#: The mask bit of a frame's second byte.
MASKED = 0x80

#: Payload bytes of a control frame at most (section 5.5).
CONTROL_MAX = 125

#: Bytes of a frame's header at most: 2, 8 of length, 4 of masking key (section 5.2).
FRAME_HEADER_MAX = 14

#: Bytes asked of the stream at once.
READ_BYTES = 256 * 1024

#: Frames that are parsed at once, in about 0.3 ms. READ_BYTES can be 43,000 empty frames, and is 173 full ones.
PARSE_FRAMES = 256

#: The part of the buffer for messages of the usual length. Memory beyond goes back to the kernel.
USUAL_BYTES = 2 * READ_BYTES

#: Bytes of masking keys that are fetched at once.
KEYS_BYTES = 512

# The parser compares each frame's first byte with plain integers, which is faster than with members of an IntEnum.
_BINARY = int(Opcode.BINARY)
_WHOLE_BINARY = FIN | _BINARY
#: All legal first bytes of a frame; a control frame is never fragmented (section 5.5).
_LEGAL_FIRST = frozenset(
    [FIN | opcode for opcode in Opcode] + [int(opcode) for opcode in Opcode if not opcode & CONTROL]
)

_LENGTH_16 = struct.Struct(">H")
_LENGTH_64 = struct.Struct(">Q")


@lru_cache(maxsize=2048)
def header(opcode: int, length: int, mask: int = 0) -> bytes:
    """The bytes before an unfragmented frame's masking key and payload; `mask` is MASKED or 0."""
    if length < 126:
        return bytes((FIN | opcode, mask | length))
    if length < 65_536:
        return bytes((FIN | opcode, mask | 126)) + _LENGTH_16.pack(length)
    return bytes((FIN | opcode, mask | 127)) + _LENGTH_64.pack(length)


class Encoder:
    """Turns messages into bytes. A client masks each frame with a fresh random key (section 5.3)."""

    def __init__(self, *, server: bool) -> None:
        self._server = server
        self._keys = b""

    def data(self, messages: Sequence[Buffer]) -> list[Buffer]:
        """Buffers that, sent in order, are one unfragmented BINARY frame per message."""
        out: list[Buffer] = []
        if self._server:
            for message in messages:
                out.append(header(_BINARY, len(message)))
                out.append(message)
            return out
        keys = self._fresh_keys(len(messages))
        for at, message in enumerate(messages):
            key = keys[4 * at : 4 * at + 4]
            out.append(header(_BINARY, len(message), MASKED) + key)
            out.append(apply_mask(message, key))
        return out

    def control(self, opcode: Opcode, payload: Buffer = b"") -> bytes:
        """One control frame. Raises ValueError for a payload of over CONTROL_MAX bytes."""
        if len(payload) > CONTROL_MAX:
            raise ValueError(f"a control frame carries {CONTROL_MAX} bytes at most, not {len(payload)}")
        if self._server:
            return header(opcode, len(payload)) + bytes(payload)
        key = self._fresh_keys(1)
        return header(opcode, len(payload), MASKED) + key + bytes(apply_mask(payload, key))

    def close(self, code: int | None = None, reason: str = "") -> bytes:
        """A Close frame; without a code it is empty. A reason that is too long is cut, between two characters."""
        if code is None:
            return self.control(Opcode.CLOSE)
        text = reason.encode()[: CONTROL_MAX - 2].decode(errors="ignore").encode()
        return self.control(Opcode.CLOSE, code.to_bytes(2, "big") + text)

    def _fresh_keys(self, count: int) -> bytes:
        """So many masking keys from the kernel's random generator; each is used once."""
        # Fetched in advance: for one small frame the system call takes as long as all the rest.
        if len(self._keys) < 4 * count:
            self._keys = os.urandom(max(4 * count, KEYS_BYTES))
        keys, self._keys = self._keys[: 4 * count], self._keys[4 * count :]
        return keys


class Decoder:
    """Turns the peer's bytes into messages and control frames.

    In turns: put bytes into space(), call received() with their number, and with 0 while `pending`; use what it
    returns. Only then call space() again: messages may be views of the buffer. `max_message` is the longest message in
    bytes, whole or in fragments.
    """

    def __init__(self, *, server: bool, max_message: int) -> None:
        #: The mask bit that the peer's frames must have: clients mask theirs.
        self.masked = MASKED if server else 0
        self._max = self._left = max_message
        self._size = max_message + FRAME_HEADER_MAX + READ_BYTES
        self._usual = min(self._size, USUAL_BYTES)
        # None before the first bytes, and at rest: then `_rest` is what is here of a frame.
        self._memory: mmap.mmap | None = None
        self._view, self._rest = memoryview(b""), b""
        self._begin = self._end = self._top = 0
        #: Whether received() has stopped before the last frame.
        self.pending = False
        self._fragments: bytearray | None = None
        self._fragmented = Opcode.BINARY
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._checked = 0
        #: The peer's first mistake, or None so far.
        self.error: ProtocolError | None = None

    def space(self) -> memoryview:
        """Where the next bytes go; never empty. What received() returned before is no longer valid."""
        if self._memory is None:
            self._memory = anonymous_memory(self._size)
            self._view = memoryview(self._memory)
            self._view[: self._end], self._rest = self._rest, b""
        begin, end = self._begin, self._end
        # Half a message is copied to the front only when the usual room is short: it may be long.
        if begin == end or (begin and end + READ_BYTES > self._usual):
            self._view[: end - begin] = self._view[begin:end]
            self._begin, self._end = 0, end - begin
            if self._top > self._usual >= self._end + READ_BYTES:
                self._memory.madvise(mmap.MADV_DONTNEED, self._usual)
                self._top = self._end
        return self._view[self._end : self._end + READ_BYTES]

    @property
    def excess(self) -> int:
        """The bytes that a long message needs beyond what is usual."""
        return max(0, self._top - self._usual, len(self._fragments or b"") - READ_BYTES)

    def rest(self) -> int:
        """Give all memory back until space() is called, but for the bytes of a message that has not come whole; return
        how many these are. What was returned before is no longer valid."""
        if self._memory is not None:
            self._rest = bytes(self._view[self._begin : self._end])
            self._memory, self._view = None, memoryview(b"")
            self._begin, self._end = 0, len(self._rest)
            self._top = self._end
        return self._end + len(self._fragments or b"")

    def received(self, size: int) -> list[tuple[int, Buffer]]:
        """Take `size` bytes from the space; return (opcode, payload) of each message and each control frame in the next
        PARSE_FRAMES frames. Then `pending` says whether more may be left.

        Raises ProtocolError at the peer's first mistake. If messages came before the mistake, they are returned first:
        then `error` is set, the next call raises it, and no more bytes need be received.
        """
        if self.error:
            raise self.error
        self._end += size
        self._top = max(self._top, self._end)
        events: list[tuple[int, Buffer]] = []
        try:
            self._parse(events)
        except ProtocolError as exc:
            self.error = exc
            if not events:
                raise
        return events

    def _parse(self, events: list[tuple[int, Buffer]]) -> None:
        view, begin, end, masked = self._view, self._begin, self._end, self.masked
        self.pending = False
        for _ in range(PARSE_FRAMES):
            if end - begin < 2:
                break
            first, second = view[begin], view[begin + 1]
            if first not in _LEGAL_FIRST:
                raise _wrong(_why_illegal(first))
            if second & MASKED != masked:
                raise _wrong("unmasked frame" if masked else "masked frame from the server")
            length, at = second & 0x7F, begin + 2
            if length > 125:
                if first & CONTROL:
                    raise _wrong("control frame of over 125 bytes")
                form, least = (_LENGTH_16, 126) if length == 126 else (_LENGTH_64, 65_536)
                if end - at < form.size:
                    break
                (length,) = form.unpack_from(view, at)
                if length < least or length >> 63:
                    raise _wrong("length not in its shortest form")
                at += form.size
            if length > self._left and not first & CONTROL:
                kind = "message" if self._fragments is None else "fragment"
                raise ProtocolError(CloseCode.TOO_BIG, f"{kind} of {length} bytes; the limit is {self._left}")
            payload_at = at + 4 if masked else at
            stop = payload_at + length
            if stop > end:
                if first & 0xF != _BINARY:
                    self._check_partial(first, bytes(view[at:payload_at]), view[payload_at:end])
                break
            payload: Buffer = view[payload_at:stop]
            if masked:
                payload = apply_mask(payload, bytes(view[at:payload_at]))
            if first == _WHOLE_BINARY and self._fragments is None:
                events.append((_BINARY, payload))
            else:
                self._unusual(first, payload, events)
            begin = self._begin = stop
        else:
            self.pending = begin < end

    def _unusual(self, first: int, payload: Buffer, events: list[tuple[int, Buffer]]) -> None:
        """Every frame but the usual one, which is a whole BINARY message."""
        opcode = first & 0xF
        if opcode & CONTROL:
            events.append((opcode, bytes(payload)))
            return
        if opcode != Opcode.CONTINUATION:
            if self._fragments is not None:
                raise _wrong("new message inside a fragmented one")
            self._fragments, self._fragmented = bytearray(), Opcode(opcode)
        elif self._fragments is None:
            raise _wrong("continuation of no message")
        self._fragments += payload
        self._left -= len(payload)
        if self._fragmented == Opcode.TEXT:
            self._check_text(payload[self._checked :], bool(first & FIN))
            self._checked = 0
        if first & FIN:
            message, self._fragments, self._left = bytes(self._fragments), None, self._max
            events.append((self._fragmented, message))

    def _check_partial(self, first: int, key: bytes, arrived: memoryview) -> None:
        """Check the first part of a text frame: once it cannot become UTF-8, the rest is not waited for (section
        8.1)."""
        opcode = first & 0xF
        begins = self._fragments is None
        text = opcode == Opcode.TEXT if begins else (opcode, self._fragmented) == (Opcode.CONTINUATION, Opcode.TEXT)
        if text and len(arrived) > self._checked:
            turn = self._checked % 4
            fresh: Buffer = arrived[self._checked :]
            self._check_text(apply_mask(fresh, key[turn:] + key[:turn]) if key else fresh, False)
            self._checked = len(arrived)

    def _check_text(self, text: Buffer, last: bool) -> None:
        try:
            self._utf8.decode(text, last)
        except UnicodeDecodeError:
            raise ProtocolError(CloseCode.INVALID_DATA, "text that is not UTF-8") from None


def _wrong(message: str) -> ProtocolError:
    return ProtocolError(CloseCode.PROTOCOL_ERROR, message)


def _why_illegal(first: int) -> str:
    if first & RESERVED_BITS:
        return "reserved bit set, but no extension was agreed"
    opcode = first & 0xF
    return "fragmented control frame" if FIN | opcode in _LEGAL_FIRST else f"reserved opcode {opcode:#x}"
