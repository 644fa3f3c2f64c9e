"""The server's side of the opening handshake, over an environment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.errors import Refused
from etherws.server.handshake import accept, subprotocols
from tests.lab.environ import GOOD, environ


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"HTTP_UPGRADE": "WebSocket", "HTTP_CONNECTION": "keep-alive, UPGRADE"},
        {"HTTP_SEC_WEBSOCKET_PROTOCOL": "chat, superchat", "HTTP_ORIGIN": "192.0.2.1:80"},
        {"HTTP_SEC_WEBSOCKET_EXTENSIONS": "permessage-deflate", "CONTENT_LENGTH": "0"},
        {"CONTENT_LENGTH": "", "HTTP_SEC_WEBSOCKET_VERSION": " 13 "},
    ],
)
def test_a_proper_request_is_accepted_and_nothing_is_negotiated(changes: dict[str, str]) -> None:
    assert accept(environ(**changes)) == [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ]


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"HTTP_UPGRADE": None, "HTTP_SEC_WEBSOCKET_KEY": None}, "426 Upgrade Required", "this is etherws"),
        ({"REQUEST_METHOD": "POST"}, "405 Method Not Allowed", "not POST"),
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, "400 Bad Request", "not HTTP/1.0"),
        ({"HTTP_HOST": None}, "400 Bad Request", "Host"),
        ({"HTTP_HOST": "a,b"}, "400 Bad Request", "Host"),
        ({"HTTP_UPGRADE": "websockets"}, "426 Upgrade Required", "Upgrade header"),
        ({"HTTP_UPGRADE": None}, "426 Upgrade Required", "Upgrade header"),
        ({"HTTP_CONNECTION": "upgraded"}, "400 Bad Request", "Connection header"),
        ({"HTTP_CONNECTION": None}, "400 Bad Request", "Connection header"),
        ({"CONTENT_LENGTH": "5"}, "400 Bad Request", "Content-Length"),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, "400 Bad Request", "Transfer-Encoding"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, "426 Upgrade Required", "Sec-WebSocket-Version"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": None}, "426 Upgrade Required", "Sec-WebSocket-Version"),
        ({"HTTP_SEC_WEBSOCKET_KEY": None}, "400 Bad Request", "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ"}, "400 Bad Request", "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25j!ZQ=="}, "400 Bad Request", "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "c2hvcnQ="}, "400 Bad Request", "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "\xe9" * 24}, "400 Bad Request", "Sec-WebSocket-Key"),
    ],
)
def test_anything_else_is_refused_by_the_name_of_the_header(
    changes: dict[str, str | None], status: str, words: str
) -> None:
    with pytest.raises(Refused, match=words) as caught:
        accept(environ(**changes))
    assert caught.value.status == status
    headers = dict(caught.value.headers)
    if status.startswith("426"):
        assert headers["Upgrade"] == "websocket"
    if status.startswith("405"):
        assert headers["Allow"] == "GET"


@pytest.mark.parametrize(
    ("changes", "status", "headers"),
    [
        ({"HTTP_UPGRADE": "h2c"}, "426", {"Upgrade": "websocket", "Connection": "Upgrade"}),
        (
            {"HTTP_SEC_WEBSOCKET_VERSION": "8"},
            "426",
            {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
        ),
        ({"HTTP_HOST": " "}, "400", {}),
        ({"CONTENT_LENGTH": "00"}, "400", {}),
        ({"HTTP_SEC_WEBSOCKET_KEY": "MDEyMzQ1Njc4OWFiY2RlZmc="}, "400", {}),
        (
            {"HTTP_UPGRADE": None, "HTTP_SEC_WEBSOCKET_KEY": None},
            "426",
            {"Upgrade": "websocket", "Connection": "Upgrade"},
        ),
    ],
    ids=["Upgrade", "version", "blank Host", "a length of 00", "a key of 17 bytes", "plain request"],
)
def test_a_refusal_has_just_the_headers_that_it_needs(
    changes: dict[str, str | None], status: str, headers: dict[str, str]
) -> None:
    with pytest.raises(Refused) as error:
        accept(environ(**changes))
    assert error.value.status.startswith(status)
    assert dict(error.value.headers) == headers


@pytest.mark.parametrize(
    ("header", "offered"),
    [(None, [""]), ("etherws.v2", ["etherws.v2"]), ("chat, \tetherws.v2 ,X", ["chat", "etherws.v2", "X"])],
)
def test_subprotocols_stand_between_commas_and_keep_their_case(header: str | None, offered: list[str]) -> None:
    assert subprotocols(environ(HTTP_SEC_WEBSOCKET_PROTOCOL=header)) == offered


@given(changes=st.dictionaries(st.sampled_from(sorted(GOOD)), st.none() | st.text(max_size=40)))
def test_any_values_give_headers_or_a_refusal(changes: dict[str, str | None]) -> None:
    try:
        headers = accept(environ(**changes))
    except Refused as exc:
        assert exc.status[0] == "4"
    else:
        assert all("\n" not in value and "\r" not in value for _, value in headers)
