"""What two processes say to each other: it comes as it was meant, and nothing that is broken comes at all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.access.policy import Profile
from etherws.access.profile_values import to_values
from etherws.errors import (
    ChannelError,
    ClientGone,
    ConnectionClosed,
    DeviceError,
    DeviceLost,
    EtherwsError,
    NoPort,
    ProxyError,
)
from etherws.server.port import ClientKey
from etherws.workers import messages
from etherws.workers.datagrams import DATAGRAM_MAX
from etherws.workers.messages import (
    LONG_MAX,
    client_of,
    client_values,
    decode,
    encode,
    error_of,
    error_values,
    number,
    optional_text,
    profile_of,
    seconds,
    text,
)


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def there_and_back(message: dict[str, Any]) -> dict[str, Any]:
    data, fd = encode(message)
    assert len(data) <= DATAGRAM_MAX
    return decode(data, [] if fd is None else [fd])


@pytest.mark.parametrize("size", [0, 100, DATAGRAM_MAX, 10 * DATAGRAM_MAX])
def test_a_message_of_any_length_comes_as_it_was(size: int) -> None:
    message = {"tell": "x" * size, "names": ["\udcff", "é"], "number": 1, "none": None}
    assert there_and_back(message) == message


def test_a_message_beyond_the_limit_is_not_sent() -> None:
    with pytest.raises(ChannelError, match="at most"):
        encode({"tell": "x" * LONG_MAX})


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 60_000, b'{"a":' * 10_000, b"1" * 10_000, b'{"a": 01}', b"long"]
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ChannelError):
        decode(data, [])


def test_a_long_message_is_in_a_memfd_that_cannot_change(tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"{}")
    unsealed = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    huge = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(huge, 1 << 40)
    fcntl.fcntl(huge, fcntl.F_ADD_SEALS, messages._SEALS)
    pipe, other = os.pipe()
    os.close(other)
    for fd in (os.open(tmp_path / "file", os.O_RDONLY), unsealed, huge, pipe):
        with pytest.raises(ChannelError, match="long message"):
            decode(b"long", [fd])


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.floats() | st.text(max_size=3), st.lists, max_leaves=4).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    with contextlib.suppress(ChannelError):
        assert isinstance(decode(data, []), dict)


def test_the_largest_profile_of_a_policy_can_be_sent() -> None:
    """A file of 1 MiB has some 50,000 addresses."""
    profile = Profile(macs=frozenset(f"02:00:00:{a:02x}:{b:02x}:00" for a in range(250) for b in range(210)))
    assert profile_of(there_and_back({"profile": to_values(profile)})) == profile


@pytest.mark.parametrize("values", [None, [], {"connect": 1}, {"mtu": True}, {"connections": 1 << 60}, {"macs": [1]}])
def test_what_is_no_profile_is_refused(values: Any) -> None:
    """The rest is checked by access/profile_values.py."""
    with pytest.raises(ChannelError, match="a profile cannot be used"):
        profile_of({"profile": values})


@pytest.mark.parametrize("client", [ClientKey(), ClientKey("alice", "t" * 22, "192.0.2.1"), ClientKey(None, "t")])
def test_a_client_comes_as_it_was(client: ClientKey) -> None:
    found = client_of(there_and_back(client_values(client)))
    assert (found, found.address) == (client, client.address)


@pytest.mark.parametrize("address", ["192.0.2.1\nERROR bob left", "\x1b[2J", "\ud800", "1" * 101])
def test_an_address_cannot_begin_a_line_of_the_log(address: str) -> None:
    """A worker that strangers have taken over must not say what others are said to do."""
    with pytest.raises(ChannelError, match="'address'"):
        client_of({"identity": "alice", "resume": None, "address": address})


def test_values_are_of_their_kind() -> None:
    message = {"text": "abc", "number": 3, "null": None, "bool": True, "minus": -1, "half": 0.5}
    assert text(message, "text") == "abc"
    assert optional_text(message, "null") is optional_text(message, "missing") is None
    assert number(message, "number") == 3
    for key in ("number", "null", "missing"):
        with pytest.raises(ChannelError):
            text(message, key)
    with pytest.raises(ChannelError):
        text(message, "text", 2)
    for key in ("text", "null", "bool", "minus", "half", "missing"):
        with pytest.raises(ChannelError):
            number(message, key)
    with pytest.raises(ChannelError):
        number(message, "number", 2)
    assert seconds(message, "half") == 0.5
    for wrong in ("bool", "minus", "text", "null", "missing"):
        with pytest.raises(ChannelError):
            seconds(message, wrong)
    with pytest.raises(ChannelError):
        seconds({"nan": float("nan")}, "nan")


@pytest.mark.parametrize(
    "error", [NoPort("n"), DeviceError("d"), DeviceLost("l"), ChannelError("c"), ConnectionClosed("x", 1008)]
)
def test_an_error_comes_as_what_it_is(error: EtherwsError) -> None:
    found = error_of(there_and_back(error_values(error)))
    assert (type(found), str(found), getattr(found, "code", 0)) == (type(error), str(error), getattr(error, "code", 0))


def test_other_errors_come_with_their_words() -> None:
    assert isinstance(error_of(error_values(ClientGone())), ClientGone)
    found = error_of(error_values(ProxyError("words")))
    assert (type(found), str(found)) == (ChannelError, "words")
    assert type(error_of({"error": "Exception", "text": "x"})) is ChannelError
    for broken in ({"error": 7, "text": "x"}, {"error": "ConnectionClosed", "text": "x", "code": "1008"}):
        with pytest.raises(ChannelError):
            error_of(broken)
