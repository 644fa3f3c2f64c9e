"""The head of an HTTP answer: where it ends, what it says, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from etherws.client.http_answer import HEAD_MAX, HttpAnswer, read_answer
from etherws.errors import ConnectError


def receiver(data: bytes, at_most: int = 1 << 20) -> Callable[[int], bytes]:
    """As socket.recv(), of a peer that sends this and closes the connection."""
    rest = bytearray(data)

    def receive(size: int) -> bytes:
        size = min(size, at_most)
        piece = bytes(rest[:size])
        del rest[:size]
        return piece

    return receive


@pytest.mark.parametrize("at_most", [1, 2, 3, 5, 1 << 20])
def test_the_head_ends_at_the_blank_line_however_it_arrives(at_most: int) -> None:
    receive = receiver(b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n\x82\x00", at_most)
    answer = read_answer(receive, hint="", exact=False)
    assert (answer.status, answer.values("a")) == (101, ["b"])
    assert answer.rest + b"".join(iter(lambda: receive(10), b"")) == b"\x82\x00"


def test_exactly_the_head_is_read_where_what_follows_is_for_somebody_else() -> None:
    receive = receiver(b"HTTP/1.1 200 Fine\r\n\r\n\r\n\r\nearly")
    answer = read_answer(receive, hint="", exact=True)
    assert answer == HttpAnswer(b"HTTP/1.1 200 Fine")
    assert receive(100) == b"\r\n\r\nearly"


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r"])
def test_an_answer_without_its_end_is_refused(data: bytes, exact: bool) -> None:
    with pytest.raises(ConnectError, match=r"^ended the connection without an answer; is it\?$"):
        read_answer(receiver(data), hint="is it?", exact=exact)


@pytest.mark.parametrize("exact", [False, True])
def test_the_length_of_a_head_is_limited(exact: bool) -> None:
    start = b"HTTP/1.1 200 OK\r\nX: "
    longest = start + bytes(HEAD_MAX - len(start) - 4) + b"\r\n\r\n"
    assert read_answer(receiver(longest), hint="", exact=exact).status == 200
    with pytest.raises(ConnectError, match=r"^answered with headers of over 16384 bytes; is it\?$"):
        read_answer(receiver(start + bytes(1 << 20)), hint="is it?", exact=exact)


@pytest.mark.parametrize(
    ("head", "status", "text"),
    [
        (b"HTTP/1.1 404 My \x1b[2J own", 404, "404 Not Found"),
        (b"HTTP/1.0 502", 502, "502 Bad Gateway"),
        (b"HTTP/1.1 200\r\nA: b", 200, "200 OK"),
        (b"HTTP/1.1 799 x", 799, "799 unknown status"),
    ],
)
def test_the_status_has_the_phrase_of_the_standard(head: bytes, status: int, text: str) -> None:
    answer = HttpAnswer(head)
    assert (answer.status, answer.status_text) == (status, text)


@pytest.mark.parametrize(
    "head",
    [b"", b"220 mail.example ESMTP", b"HTTP/2 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b" HTTP/1.1 200 OK"],
)
def test_what_is_not_http_1_has_no_status(head: bytes) -> None:
    assert HttpAnswer(head).status is None
    assert HttpAnswer(head).status_text == "None unknown status"


def test_values_come_in_their_order_whatever_the_case_of_the_name() -> None:
    head = b"HTTP/1.1 401 A: 0\r\nA: 1\r\nb: 2\r\na:3 \r\nAA: 4\r\nno colon\r\nA: \xc3\xa9\xff"
    answer = HttpAnswer(head)
    assert answer.values("A") == answer.values("a") == ["1", "3", "\u00e9\udcff"]
    assert answer.values("c") == []
