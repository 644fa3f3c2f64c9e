"""One attempt to connect, against a server and a proxy that say anything: only ConnectError may come of it."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.client import dial
from etherws.client.attempt import RemoteServer, split_uri
from etherws.client.credentials import Credentials
from etherws.client.proxy_choice import ProxyChoice
from etherws.errors import ConnectError
from etherws.settings import DeviceSettings, Trust
from tests.lab.servers import switching

#: What hostile headers are made of: names that the client reads, values at the edge of their syntax, and noise.
NAMES = st.sampled_from(
    [
        *("WWW-Authenticate", "Proxy-Authenticate", "Retry-After", "Location", "Upgrade", "Connection"),
        *("Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Content-Length", "", " x"),
    ]
)
PIECES = st.sampled_from(
    [
        *(
            "Basic",
            "Digest ",
            "NTLM TlRMTVNTUAAC",
            "Negotiate",
            "Bearer",
            'realm="',
            "realm=x",
            'nonce="a\\',
            ", ",
            ",",
        ),
        *('qop="auth"', "qop=auth,auth-int", "algorithm=SHA-256", "algorithm=\xff", "stale=true", 'opaque="', "="),
        *("²", "٣", "1e9", "-1", "9" * 400, "Wed, 21 Oct 2015 07:28:00 GMT", "\x00", "\r", "\n", "\t", " ", "\x85"),
        *(
            "\udcff",
            "\udc80\udcc3",
            "websocket",
            "Upgrade",
            "v2.etherws",
            "permessage-deflate; a=1",
            '"',
            "\\",
            "{target}",
        ),
        *("%s%s", "http://[", "http://\udcff/"),
    ]
)
VALUES = st.lists(PIECES, max_size=6).map("".join)
STATUSES = st.sampled_from([100, 101, 199, 200, 204, 301, 302, 399, 400, 401, 403, 404, 407, 426, 429, 500, 503, 799])
HEADS = st.builds(
    lambda status, reason, headers: (
        f"HTTP/1.1 {status} {reason}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
    ).encode(errors="surrogateescape"),
    STATUSES,
    VALUES,
    st.lists(st.tuples(NAMES, VALUES), max_size=6),
)
ANSWERS = HEADS | st.binary(max_size=100) | st.builds(lambda head, cut: head[:cut], HEADS, st.integers(0, 60))


class Said(io.BytesIO):
    """A stream whose other end says the same, whatever it is asked; `right` makes it begin with the right 101."""

    def __init__(self, said: bytes, right: bool = False) -> None:
        super().__init__(said)
        self._right = right

    def sendall(self, data: bytes) -> None:
        """As socket.sendall()."""
        if self._right:
            self.__init__(switching(data)[:-2] + self.read())  # type: ignore[misc]

    def recv(self, size: int) -> bytes:
        """As socket.recv()."""
        return self.read(size)


def attempt(monkeypatch: pytest.MonkeyPatch, answers: list[Said], proxy: str | None = None, **login: Any) -> object:
    """Connect to a server that answers so; return what the connection is made from."""
    uri, _, _ = split_uri("ws://server.example/")
    choice = ProxyChoice(proxy)
    server = RemoteServer(uri, DeviceSettings(), proxy_choice=choice, trust=Trust(), credentials=Credentials(**login))
    left = iter(answers)
    monkeypatch.setattr(dial.Dialer, "_connect", lambda *_: next(left))
    monkeypatch.setattr(RemoteServer, "connection", lambda *parts, **_: parts)
    return server.connect()


@given(answer=ANSWERS, right=st.booleans(), login=st.sampled_from([{}, {"user": "u", "password": "p"}, {"token": "t"}]))
def test_whatever_a_server_says_is_an_answer_or_an_error(answer: bytes, right: bool, login: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.suppress(ConnectError):
        assert attempt(monkeypatch, [Said(answer, right)], **login)


@given(answers=st.lists(ANSWERS, min_size=3, max_size=3), login=st.sampled_from(["", "user:password@"]))
def test_whatever_an_http_proxy_says_is_an_answer_or_an_error(answers: list[bytes], login: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.suppress(ConnectError):
        assert attempt(monkeypatch, [Said(answer) for answer in answers], f"http://{login}proxy:1/")


@given(
    answer=st.lists(st.sampled_from([*(bytes([byte]) for byte in range(6)), b"\xff"]) | st.binary(max_size=30)).map(
        b"".join
    ),
    login=st.sampled_from(["", "user:password@"]),
)
def test_whatever_a_socks_proxy_says_is_an_answer_or_an_error(answer: bytes, login: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.suppress(ConnectError):
        assert attempt(monkeypatch, [Said(b"\5" + answer)], f"socks5://{login}proxy:1/")


@pytest.mark.parametrize(
    ("value", "wait"),
    [("120", 120.0), ("999999999", 300.0), ("²", 0.0), ("٣", 0.0), ("-1", 0.0), ("1e3", 0.0), ("", 0.0)],
)
def test_only_plain_digits_of_retry_after_count(monkeypatch: pytest.MonkeyPatch, value: str, wait: float) -> None:
    with pytest.raises(ConnectError, match="answered 503") as caught:
        attempt(monkeypatch, [Said(f"HTTP/1.1 503 Busy\r\nRetry-After: {value}\r\n\r\n".encode())])
    assert caught.value.wait == wait
