"""The frames of a measuring session (``etherws check``): what client and server say to each other there, as bytes.

Pure. They are packets as those of a TAP, so they take the whole way of a tunnel's frames; but no address of theirs is
one of a LAN, and nobody gives them to an interface. docs/wire.rst, "A check", is the specification. Read next:
check_traffic.py, which sends and counts them; server/responder.py and check/path/measure.py, the two ends.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from enum import IntEnum

from etherws.close_codes import CloseCode
from etherws.errors import ProtocolError, printable
from etherws.tunnel.wire import COMPLETE, VNET_BYTES, Buffer

#: The type of the frames: IEEE Std 802, "Local Experimental Ethertype 1". No switch does anything by it.
ETHERTYPE = 0x88B5

#: Destination and source: no address of a station. A Linux bridge drops a frame that comes from it
#: (net/bridge/br_input.c, br_handle_frame).
ADDRESSES = bytes(12)

#: Bytes of a frame: the least of Ethernet without its FCS, and a jumbo frame (MTU 9,000 and 14 bytes of header).
SIZE_MIN, SIZE_MAX = 60, 9014

#: Bytes of a full frame, of which bulk is made: MTU 1,500 and 14 bytes of header.
SIZE_FULL = 1514

#: Seconds for which one end is asked to send, at most.
SEND_SECONDS_MAX = 10.0

#: Requests of the client that may be unanswered at a time. The answers wait in the server's memory.
UNANSWERED_MAX = 64


class Kind(IntEnum):
    """What a frame is."""

    #: From the client: answer at once, with a frame of `value` bytes.
    PROBE = 1
    ANSWER = 2
    #: From either end: bulk, to be counted.
    DATA = 3
    #: From the client: report what DATA came since the last report.
    ASK = 4
    REPORT = 5
    #: From the client: send DATA for `value` microseconds, and then a report of it.
    SEND = 6


_HEAD = struct.Struct(">12sHBxHIQQQQI")
_REPORT = struct.Struct(">QQIIIB3x16s")
_LEAST = _HEAD.size
_LEAST_REPORT = _HEAD.size + _REPORT.size

#: What each packet with DATA begins with. A receiver compares this, and reads no more of it.
DATA_HEAD = COMPLETE + ADDRESSES + struct.pack(">HB", ETHERTYPE, Kind.DATA)
_PADDING = os.urandom(SIZE_MAX)

#: Flags of a report: the sender's kernel begins slowly after a pause; its limits are those of the policy.
_SLOW_START, _POLICY_UP, _POLICY_DOWN = 1, 2, 4

_U32, _U64 = (1 << 32) - 1, (1 << 64) - 1


@dataclass(frozen=True)
class Report:
    """What the server tells of itself beside the counters.

    `limit_up` and `limit_down` are in bits per second: what it takes and sends at most; `policy_up` and `policy_down`
    are whether the policy says so. `congestion` is its TCP's congestion control, `retransmitted` of `segments` were
    sent again so far, `shortest` is the shortest round trip in microseconds. `slow_start` is whether its kernel begins
    slowly again after a pause.
    """

    limit_up: int = 0
    limit_down: int = 0
    policy_up: bool = False
    policy_down: bool = False
    retransmitted: int = 0
    segments: int = 0
    shortest: int = 0
    slow_start: bool = False
    congestion: str = ""


@dataclass(frozen=True)
class Message:
    """One frame. Times are in nanoseconds of a monotonic clock of the end that says them.

    ====== =================== ======================== ==================== ======================= ===================
    kind   sent                received                 answered             value                   round_trip
    ====== =================== ======================== ==================== ======================= ===================
    PROBE  now (client)        -                        -                    bytes of the answer     -
    ANSWER that of the probe   when the probe came      when this was sent   bytes of the probe      TCP's, microseconds
    ASK    now (client)        -                        -                    -                       -
    SEND   now (client)        -                        -                    microseconds            -
    REPORT that of the request when the first DATA came when the last came   bytes of the frames     -
    ====== =================== ======================== ==================== ======================= ===================

    A REPORT after a SEND has when the first DATA and the last were sent. `number` of an answer is that of its request.
    """

    kind: Kind
    number: int = 0
    sent: int = 0
    received: int = 0
    answered: int = 0
    value: int = 0
    round_trip: int = 0
    report: Report | None = None
    #: Bytes of the frame, when it was read.
    size: int = 0


def write(message: Message, size: int = SIZE_MIN) -> bytes:
    """The packet of a message, whose frame has `size` bytes, or as many as the message needs; values that are too large
    are cut. The padding is random: nothing on the way can compress it."""
    tail = _tail(message.report) if message.report else b""
    size = max(size, SIZE_MIN, _LEAST + len(tail))
    head = _HEAD.pack(
        ADDRESSES,
        ETHERTYPE,
        message.kind,
        size,
        message.number & _U32,
        message.sent & _U64,
        message.received & _U64,
        message.answered & _U64,
        message.value & _U64,
        min(message.round_trip, _U32),
    )
    return COMPLETE + head + tail + _PADDING[: size - len(head) - len(tail)]


def _tail(report: Report) -> bytes:
    flags = _SLOW_START * report.slow_start | _POLICY_UP * report.policy_up | _POLICY_DOWN * report.policy_down
    return _REPORT.pack(
        report.limit_up & _U64,
        report.limit_down & _U64,
        min(report.retransmitted, _U32),
        min(report.segments, _U32),
        min(report.shortest, _U32),
        flags,
        report.congestion.encode("ascii", "replace"),
    )


def read(packet: Buffer) -> Message:
    """The message of a packet. Raises ProtocolError if it is none, or not as long as it says."""
    size = len(packet) - VNET_BYTES
    if not SIZE_MIN <= size <= SIZE_MAX:
        raise _wrong(f"a frame of {size} bytes; {SIZE_MIN} to {SIZE_MAX} can be")
    addresses, ethertype, kind, length, number, *times, value, round_trip = _HEAD.unpack_from(packet, VNET_BYTES)
    if addresses != ADDRESSES or ethertype != ETHERTYPE:
        raise _wrong("a frame that is none of a check")
    if length != size:
        raise _wrong(f"a frame of {size} bytes that was sent with {length}")
    try:
        found = Kind(kind)
    except ValueError:
        raise _wrong(f"a frame of the kind {kind}, which nobody knows") from None
    report = None
    if found is Kind.REPORT:
        if size < _LEAST_REPORT:
            raise _wrong(f"a report of {size} bytes; the least is {_LEAST_REPORT}")
        up, down, retransmitted, segments, shortest, flags, name = _REPORT.unpack_from(packet, VNET_BYTES + _LEAST)
        congestion = printable(name.rstrip(b"\0").decode("ascii", "replace"))
        policy = bool(flags & _POLICY_UP), bool(flags & _POLICY_DOWN)
        slow = bool(flags & _SLOW_START)
        report = Report(up, down, *policy, retransmitted, segments, shortest, slow, congestion)
    sent, received, answered = times
    return Message(found, number, sent, received, answered, value, round_trip, report, size)


def _wrong(text: str) -> ProtocolError:
    return ProtocolError(CloseCode.PROTOCOL_ERROR, f"in a check: {text}")
