"""The frames of a check: written, read, and refused."""

from __future__ import annotations

import struct

import pytest

from etherws.errors import ProtocolError
from etherws.tunnel.check_frames import DATA_HEAD, SIZE_FULL, SIZE_MAX, SIZE_MIN, Kind, Message, Report, read, write
from etherws.tunnel.wire import VNET_BYTES

REPORT = Report(10**9, 20 * 10**6, True, False, 3, 4000, 1234, True, "bbr")


@pytest.mark.parametrize("size", [SIZE_MIN, SIZE_FULL, SIZE_MAX])
@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.REPORT])
def test_what_is_written_is_read(kind: Kind, size: int) -> None:
    packet = write(Message(kind, 7, 1 << 40, 2 << 40, 3 << 40, 1514, 99), size)
    assert len(packet) == VNET_BYTES + size
    assert read(packet) == Message(kind, 7, 1 << 40, 2 << 40, 3 << 40, 1514, 99, size=size)
    assert (kind is Kind.DATA) == packet.startswith(DATA_HEAD)


@pytest.mark.parametrize("report", [REPORT, Report(), Report(policy_down=True, congestion="a" * 16)])
def test_a_report_is_as_long_as_it_needs_to_be(report: Report) -> None:
    packet = write(Message(Kind.REPORT, 1, value=5, report=report))
    assert read(packet) == Message(Kind.REPORT, 1, value=5, report=report, size=len(packet) - VNET_BYTES)


def test_values_that_are_too_large_are_cut() -> None:
    found = read(write(Message(Kind.PROBE, 1 << 33, -1, round_trip=1 << 40, value=1 << 64)))
    assert (found.number, found.sent, found.round_trip, found.value) == (0, 2**64 - 1, 2**32 - 1, 0)
    odd = read(write(Message(Kind.REPORT, report=Report(retransmitted=1 << 40, congestion="b\xfcb" * 9)))).report
    assert odd
    assert (odd.retransmitted, odd.congestion) == (2**32 - 1, "b?bb?bb?bb?bb?bb")


def test_a_name_with_control_characters_is_made_printable() -> None:
    packet = bytearray(write(Message(Kind.REPORT, report=REPORT)))
    packet[-16:-13] = b"\x1b[m"
    found = read(packet).report
    assert found
    assert found.congestion == "?[m"


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (b"", "a frame of -10 bytes; 60 to 9014 can be"),
        (write(Message(Kind.PROBE))[:-1], "a frame of 59 bytes"),
        (write(Message(Kind.PROBE), SIZE_MAX) + b"x", "a frame of 9015 bytes"),
        (write(Message(Kind.PROBE)) + b"x", "a frame of 61 bytes that was sent with 60"),
        (bytes(VNET_BYTES) + b"\xff" * 60, "a frame that is none of a check"),
        (bytes(VNET_BYTES + 60), "a frame that is none of a check"),
        (
            write(Message(Kind.PROBE))[:24] + b"\x07" + write(Message(Kind.PROBE))[25:],
            "of the kind 7, which nobody knows",
        ),
        (write(Message(Kind.REPORT)), "a report of 60 bytes; the least is 106"),
    ],
)
def test_what_is_none_is_a_breach(packet: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words) as found:
        read(packet)
    assert found.value.code == 1002


def test_the_layout_is_that_of_the_document() -> None:
    packet = write(Message(Kind.ANSWER, 1, 2, 3, 4, 5, 6))[VNET_BYTES:]
    assert packet[:16] == bytes(12) + b"\x88\xb5\x02\x00"
    assert struct.unpack(">HIQQQQI", packet[16:58]) == (60, 1, 2, 3, 4, 5, 6)
