"""Errors of the network in words: what to try for each."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from etherws.client.network_errors import described


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ECONNREFUSED, "Connection refused by 192.0.2.1; is it running there, and is the port right?"),
        (errno.ENETUNREACH, "Network is unreachable by 192.0.2.1; is this machine's network up? it has no route there"),
        (errno.EIO, "Input/output error by 192.0.2.1"),
    ],
)
def test_an_error_says_what_to_try(number: int, words: str) -> None:
    assert described(OSError(number, os.strerror(number)), " by 192.0.2.1") == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (socket.EAI_NONAME, "spelled right?"),
        (socket.EAI_AGAIN, "the name server gives no answer"),
        (socket.EAI_FAIL, "cannot answer"),
        (socket.EAI_NODATA, "--ipv4"),
        (socket.EAI_FAMILY, "--ipv4"),
        (socket.EAI_ADDRFAMILY, "--ipv4"),
    ],
)
def test_a_name_that_is_not_found_says_whose_fault_it_may_be(number: int, words: str) -> None:
    assert words in described(socket.gaierror(number, "not found"))


def test_an_error_without_a_number_is_shown_as_it_is() -> None:
    assert described(UnicodeError("label too long")) == "label too long"
    assert described(OSError("timed out")) == "timed out"
