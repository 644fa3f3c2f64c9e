"""The borders of the pure modules: the last value that is taken, the first that is not, and what must stay as it is."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest

from etherws.errors import ProtocolError, SettingsError
from etherws.settings import MTU_MAX, Retry, ServerSettings
from etherws.tunnel.frames import BINARY, PING, READ_BYTES, Decoder, Encoder, parse_close
from etherws.tunnel.wire import Version1


def fed(decoder: Decoder, data: bytes) -> list[tuple[int, bytes]]:
    space = decoder.space()
    space[: len(data)] = data
    return [(opcode, bytes(payload)) for opcode, payload in decoder.received(len(data))]


def test_fragments_of_just_the_limit_are_taken_and_binary_need_not_be_utf8() -> None:
    data = b"\x02\x7e\x03\xe7" + b"\xff" * 999 + b"\x80\x01\xfe"
    assert fed(Decoder(server=False, max_message=1000), data) == [(BINARY, b"\xff" * 999 + b"\xfe")]


@pytest.mark.parametrize("first", [*range(0x83, 0x88), *range(0x8B, 0x90), 0x03, 0x0F], ids=hex)
def test_every_reserved_opcode_is_refused(first: int) -> None:
    with pytest.raises(ProtocolError, match=f"reserved opcode {first & 15:#x}") as error:
        fed(Decoder(server=False, max_message=1000), bytes([first, 0]))
    assert error.value.code == 1002


@pytest.mark.parametrize("first", [0x88, 0x89, 0x8A], ids=["close", "ping", "pong"])
def test_every_control_frame_of_over_125_bytes_is_refused_by_its_second_byte(first: int) -> None:
    with pytest.raises(ProtocolError, match="over 125") as error:
        fed(Decoder(server=False, max_message=1000), bytes([first, 126]))
    assert error.value.code == 1002


@pytest.mark.parametrize("server", [True, False], ids=["at the server", "at the client"])
def test_there_is_always_room_for_one_more_read(server: bool) -> None:
    # 8 bytes of length, and but one byte of the payload missing: the most that ever waits.
    data = b"".join(Encoder(server=not server).data([bytes(65_536)]))
    decoder = Decoder(server=server, max_message=65_536)
    events: list[tuple[int, bytes]] = []
    for start in range(0, len(data) - 1, READ_BYTES):
        events += fed(decoder, data[start : min(start + READ_BYTES, len(data) - 1)])
    assert events == []
    assert len(decoder.space()) >= READ_BYTES
    assert fed(decoder, data[-1:]) == [(BINARY, bytes(65_536))]


def test_a_control_frame_may_carry_125_bytes() -> None:
    assert Encoder(server=True).control(PING, b"x" * 125) == b"\x89\x7d" + b"x" * 125


def test_each_control_frame_of_a_client_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = iter([b"\1\2\3\4", b"\5\6\7\x08"])
    monkeypatch.setattr(os, "urandom", lambda size: next(keys)[:size])
    encoder = Encoder(server=False)
    assert encoder.control(PING, b"\0\0") == b"\x89\x82\1\2\3\4\1\2"
    assert encoder.close() == b"\x88\x80\5\6\7\x08"


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4999])
def test_a_close_code_at_a_border_is_legal(code: int) -> None:
    assert parse_close(code.to_bytes(2, "big")) == (code, "")


@pytest.mark.parametrize("payload", [b"\x03", b"\x03\xe7", b"\x03\xed"], ids=["one byte", "999", "1005"])
def test_an_illegal_close_is_a_protocol_error_by_its_code_too(payload: bytes) -> None:
    with pytest.raises(ProtocolError) as error:
        parse_close(payload)
    assert error.value.code == 1002


def test_a_message_of_64_kib_is_taken() -> None:
    assert Version1.max_message >= 65_536


@pytest.mark.parametrize(
    "values",
    [{"device": "é" * 8}, {"device": "a\tb"}, {"device": "a\nb"}, {"device": "."}, {"bridge": ""}, {"path": "/#a"}],
    ids=["16 bytes in 8 letters", "tab", "newline", "dot", "empty bridge", "fragment"],
)
def test_more_bad_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"--{next(iter(values))}"):
        ServerSettings(**values)


def test_the_first_wait_may_be_the_longest() -> None:
    assert Retry(first=30.0, most=30.0).first == 30.0


def test_the_longest_tagged_frame_of_the_largest_mtu_is_taken_by_the_peer() -> None:
    assert Version1.max_message >= MTU_MAX + 14 + 4


@pytest.mark.parametrize("limit", [0, 1, 100, 124], ids=lambda limit: f"limit {limit}")
def test_the_limit_holds_below_126_bytes_too(limit: int) -> None:
    assert fed(Decoder(server=False, max_message=limit), bytes([0x82, limit]) + bytes(limit)) == [
        (BINARY, bytes(limit))
    ]
    with pytest.raises(ProtocolError) as error:
        fed(Decoder(server=False, max_message=limit), bytes([0x82, limit + 1]) + bytes(limit + 1))
    assert error.value.code == 1009


def test_an_error_stays_the_same_error() -> None:
    decoder = Decoder(server=False, max_message=1000)
    with pytest.raises(ProtocolError) as first:
        fed(decoder, b"\x01\x01\xc3\x80\x01(")
    with pytest.raises(ProtocolError) as again:
        fed(decoder, b"")
    assert (again.value.code, str(again.value)) == (first.value.code, str(first.value))


@pytest.mark.parametrize("option", ["device", "bridge"])
@pytest.mark.parametrize(
    "name",
    [os.fsdecode(b"eth\xff"), "a\0b", "\u00e0", "a\u00a0"],
    ids=["not UTF-8", "NUL", "a letter with byte a0", "no-break space is refused already"],
)
def test_a_name_that_the_kernel_cannot_take_is_a_settings_error(option: str, name: str) -> None:
    with pytest.raises(SettingsError, match=f"--{option}"):
        ServerSettings(**{option: name})  # type: ignore[arg-type]


def test_an_mtu_of_thousands_of_digits_is_a_settings_error() -> None:
    with pytest.raises(SettingsError):
        ServerSettings.from_environ({"ETHERWS_SERVER_MTU": "9" * 5000})


def test_a_timeout_that_is_no_number_is_refused() -> None:
    with pytest.raises(SettingsError, match="--connect-timeout"):
        Retry(timeout=math.nan)
