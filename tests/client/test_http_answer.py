"""The head of an HTTP answer: where it ends, what it says, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from etherws.client.http_answer import BODY_MAX, HEAD_MAX, INTERIM_MAX, Body, HttpAnswer, read_answer, read_body
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
@pytest.mark.parametrize(
    "data", [b"", b"HT", b"HTTP/1.1 100 x\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r"]
)
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


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 x\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("at_most", [1, 7, 1 << 20])
def test_interim_answers_before_the_final_one_are_left_out(at_most: int, exact: bool) -> None:
    receive = receiver(INTERIM + b"HTTP/1.1 101 x\r\nA: b\r\n\r\n\x82\x00", at_most)
    answer = read_answer(receive, hint="", exact=exact)
    assert (answer.status, answer.value("a"), answer.value("b")) == (101, "b", "")
    assert answer.rest + b"".join(iter(lambda: receive(10), b"")) == b"\x82\x00"


@pytest.mark.parametrize("exact", [False, True])
def test_interim_answers_are_bounded_in_number_and_bytes(exact: bool) -> None:
    one, final = b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 200 x\r\n\r\n"
    assert read_answer(receiver(INTERIM_MAX * one + final), hint="", exact=exact).status == 200
    with pytest.raises(ConnectError, match=r"^answered with over 8 interim answers, such as 100 Continue; is it\?$"):
        read_answer(receiver(1000 * one), hint="is it?", exact=exact)
    long = b"HTTP/1.1 103 x\r\nX: " + bytes(HEAD_MAX // 3) + b"\r\n\r\n"
    with pytest.raises(ConnectError, match="headers of over 16384 bytes"):
        read_answer(receiver(3 * long + final), hint="", exact=exact)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("data", [b"SSH-2.0-x\r\n", b"\x15\x03\x01\0\x02\x02\x16", b"\0\0\x12\x04"])
def test_what_cannot_become_http_is_returned_at_once(data: bytes, exact: bool) -> None:
    asked: list[int] = []
    pieces = iter([data[:1], data[1:]] if exact else [data])

    def receive(size: int) -> bytes:
        # One more call would fail: the peer says nothing more, and waits.
        asked.append(size)
        return next(pieces)

    answer = read_answer(receive, hint="", exact=exact)
    assert (answer.head, answer.status) == (data, None)
    assert len(asked) <= 2


def body_of(answer: HttpAnswer, data: bytes, at_most: int = 1 << 20) -> bytes:
    """What is read of this body."""
    body = Body(answer)
    read_body(receiver(data, at_most), body)
    assert len(body.data) <= BODY_MAX
    return bytes(body.data)


@pytest.mark.parametrize("at_most", [1, 3, 1 << 20])
@pytest.mark.parametrize(
    ("headers", "data", "expected"),
    [
        ("Content-Length: 5", b"hello, and more", b"hello"),
        ("Content-Length: 0", b"hello", b""),
        ("Content-Length: 9", b"short", b"short"),
        ("Content-Length: five", b"until the end", b"until the end"),
        ("Content-Length: 99999999999999999999", b"x", b"x"),
        ("X: y", b"until the end", b"until the end"),
        ("Transfer-Encoding: chunked", b"3\r\nhel\r\n02 ;x=y\r\nlo\r\n0\r\n\r\nmore", b"hello"),
        ("Transfer-Encoding: gzip, Chunked\r\nContent-Length: 1", b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        ("Transfer-Encoding: chunked", b"no chunk\r\n", b""),
        ("Transfer-Encoding: chunked", b"5;" + bytes(400), b""),
        ("Transfer-Encoding: chunked", b"5\r\nhel", b"hel"),
        ("Transfer-Encoding: chunked", b"ffffffff\r\n" + bytes(2 * BODY_MAX), None),
        ("X: y", bytes(2 * BODY_MAX), bytes(BODY_MAX)),
        ("Transfer-Encoding: chunked", b"1\r\na\r\n" * BODY_MAX, None),
    ],
)
def test_a_body_ends_where_its_head_says(headers: str, data: bytes, expected: bytes | None, at_most: int) -> None:
    found = body_of(HttpAnswer(f"HTTP/1.1 400 x\r\n{headers}".encode()), data, at_most)
    if expected is not None:
        assert found == expected


def test_a_body_that_was_read_with_the_head_counts() -> None:
    assert body_of(HttpAnswer(b"HTTP/1.1 400 x\r\nContent-Length: 5", b"hel"), b"lo more") == b"hello"


@pytest.mark.parametrize("status", [204, 304])
def test_some_answers_have_no_body(status: int) -> None:
    assert body_of(HttpAnswer(f"HTTP/1.1 {status} x".encode()), b"words") == b""
