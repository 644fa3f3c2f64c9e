"""The close codes by their numbers, and what a Close says."""

from __future__ import annotations

import pytest

from etherws.close_codes import CloseCode, closed_by_peer, parse_close
from etherws.errors import ProtocolError


def test_the_codes_are_those_of_the_rfc() -> None:
    assert {code.name: int(code) for code in CloseCode} == {
        "NORMAL": 1000,
        "GOING_AWAY": 1001,
        "PROTOCOL_ERROR": 1002,
        "INVALID_DATA": 1007,
        "POLICY_VIOLATION": 1008,
        "TOO_BIG": 1009,
        "INTERNAL_ERROR": 1011,
        "SERVICE_RESTART": 1012,
        "TRY_AGAIN_LATER": 1013,
    }


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", (None, "")),
        (b"\x03\xe8", (1000, "")),
        (b"\x03\xe9bye", (1001, "bye")),
        (b"\x0b\xb8\xc3\xa9", (3000, "\u00e9")),
        (b"\x13\x87", (4999, "")),
    ],
)
def test_a_close_payload_is_read(payload: bytes, expected: tuple[int | None, str]) -> None:
    assert parse_close(payload) == expected


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_an_illegal_close_code_is_refused(code: int) -> None:
    with pytest.raises(ProtocolError, match=f"close code {code}"):
        parse_close(code.to_bytes(2, "big"))


def test_a_close_of_one_byte_or_bad_text_is_refused() -> None:
    with pytest.raises(ProtocolError, match="one byte"):
        parse_close(b"\x03")
    with pytest.raises(ProtocolError, match="UTF-8") as caught:
        parse_close(b"\x03\xe8\xff")
    assert caught.value.code == 1007


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4999])
def test_a_close_code_at_a_border_is_legal(code: int) -> None:
    assert parse_close(code.to_bytes(2, "big")) == (code, "")


@pytest.mark.parametrize("payload", [b"\x03", b"\x03\xe7", b"\x03\xed"], ids=["one byte", "999", "1005"])
def test_an_illegal_close_is_a_protocol_error_by_its_code_too(payload: bytes) -> None:
    with pytest.raises(ProtocolError) as error:
        parse_close(payload)
    assert error.value.code == 1002


def test_a_close_says_who_has_ended_the_connection_and_why() -> None:
    assert str(closed_by_peer(b"")) == "closed by the peer, code none"
    told = closed_by_peer(b"\x03\xe9bye\n")
    assert (str(told), told.code) == ("closed by the peer, code 1001: bye?", 1001)
    with pytest.raises(ProtocolError):
        closed_by_peer(b"\x03")
