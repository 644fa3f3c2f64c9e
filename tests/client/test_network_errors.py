"""Errors of the network in words: what to try for each."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from etherws.client.network_errors import Step, described, missed, no_answer


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


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Step.NAME, "no answer within 10 s from the name server; is this machine's network up"),
        (Step.TCP, "no answer within 10 s from 192.0.2.1:443; does a firewall drop it"),
        (Step.TLS, "no answer within 10 s to TLS, though TCP is connected; are large packets lost"),
        (Step.REQUEST, "no answer within 10 s to the request; does what listens there run"),
    ],
)
def test_silence_says_what_has_not_answered(step: Step, words: str) -> None:
    assert no_answer(10.0, step, "192.0.2.1:443").startswith(words)


def test_silence_of_a_proxy() -> None:
    before = "no answer from the proxy http://192.0.2.9:3128 within 10 s; "
    assert no_answer(10.0, Step.PROXY, "", "http://192.0.2.9:3128") == f"{before}{Step.PROXY.value[1]}"
    assert no_answer(10.0, Step.TCP, "192.0.2.9:3128", "http://192.0.2.9:3128").startswith(f"{before}does a firewall")


def test_addresses_that_do_not_work_beside_one_that_does() -> None:
    refused, away = OSError(errno.ECONNREFUSED, "Connection refused"), OSError(errno.ENETUNREACH, "unreachable")
    words = missed("lan.example", [("192.0.2.1", None), ("192.0.2.2", refused)], "192.0.2.3")
    assert words.startswith(
        "lan.example has an address that does not work, 192.0.2.1 (no answer), 192.0.2.2 (Connection refused);"
        " 192.0.2.3 does"
    )
    words = missed("lan.example", [("2001:db8::1", None)], "192.0.2.3")
    assert words.startswith("IPv6 does not work on the path to lan.example, 2001:db8::1 (no answer); IPv4 does")
    assert "IPv6 does not" not in missed("lan.example", [("2001:db8::1", None)], "2001:db8::2")
    # A machine without IPv6 has nothing to mend.
    assert missed("lan.example", [("2001:db8::1", away)], "192.0.2.3") == missed("lan.example", [], "192.0.2.3") == ""
