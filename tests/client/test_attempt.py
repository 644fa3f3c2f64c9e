"""One attempt to connect, against a server and a proxy that say anything: only ConnectError may come of it."""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.client import dial
from etherws.client.attempt import OFFER_AGAIN, RemoteServer, split_uri
from etherws.client.credentials import Credentials
from etherws.client.proxy_choice import ProxyChoice
from etherws.errors import ConnectError
from etherws.settings import DeviceSettings, Trust
from etherws.tunnel.frames import Decoder
from tests.lab.answering import Answering
from tests.lab.servers import switching
from tests.lab.websocket import feed

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


ECHO = ("etherws.v2", "v2, mtu=1500")
PROVED = ("etherws.v2", {"v2": "", "mtu": "=1500"})
PLAIN = ("", "")


class Servers:
    """A client's server, whose connections the test answers, and the client's clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wire: int = 2) -> None:
        uri, _, _ = split_uri("ws://server.example/")
        self.now = 1000.0
        self._left: list[Answering] = []
        monkeypatch.setattr(dial.Dialer, "_connect", lambda *_: self._left.pop(0))
        monkeypatch.setattr("etherws.client.attempt.monotonic", lambda: self.now)
        self._server = RemoteServer(
            uri,
            DeviceSettings(wire=wire),
            proxy_choice=ProxyChoice(None),
            trust=Trust(),
            credentials=Credentials(),
        )

    def connect(self, *answers: tuple[str, Any], tap: Any = None) -> tuple[int, list[Answering]]:
        """One attempt: the version that it speaks, and the connections that it took, all of these."""
        streams = [Answering(*answer) for answer in answers]
        self._left = streams.copy()
        connection = self._server.connect(tap)
        assert not self._left
        connection.close(None)
        return connection.wire.number, streams


def test_an_answer_in_doubt_costs_one_more_connection_without_an_offer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    servers = Servers(monkeypatch)
    version, (first, second) = servers.connect(ECHO, PLAIN)
    assert version == 1
    assert first.offers() == ["Sec-WebSocket-Protocol: etherws.v2", "Etherws-Features: v2"]
    assert second.offers() == []
    # A Close, 1000, by which the server frees the port; and the name by which it knows that the client comes again.
    assert feed(Decoder(server=True, max_message=1), bytes(first.sent)) == [(8, b"\x03\xe8")]
    assert first.ends[-1] == "close"
    assert len({line for one in (first, second) for line in one.asked.split("\r\n") if "Resume" in line}) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "ws://server.example:80: speaking version 1 of the wire, which is slower: its header Etherws-Features does not"
        " belong to this handshake: a proxy on the way makes the handshake anew, or another program echoes what it is"
        " offered. --wire 1 offers nothing from the start"
    ]


def test_a_doubt_is_remembered_for_a_minute_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    servers = Servers(monkeypatch)
    servers.connect(ECHO, PLAIN)
    servers.now += OFFER_AGAIN - 1
    assert servers.connect(PLAIN)[1][0].offers() == []
    servers.now += 2
    servers.connect(ECHO, PLAIN)
    assert len(caplog.records) == 1
    # The server was upgraded, and then the proxy before it goes wrong.
    servers.now += OFFER_AGAIN + 1
    assert servers.connect(PROVED)[0] == 2
    servers.connect(("etherws.v2", ""), PLAIN)
    assert len(caplog.records) == 2


def test_a_server_without_version_2_costs_one_connection_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    servers = Servers(monkeypatch)
    for _ in range(2):
        version, (only,) = servers.connect(PLAIN)
        assert (version, len(only.offers())) == (1, 2)
    assert not caplog.records


def test_with_version_1_only_nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    version, (only,) = Servers(monkeypatch, wire=1).connect(PLAIN)
    assert (version, only.offers()) == (1, [])


def test_other_mtus_are_warned_of_once_each(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    servers = Servers(monkeypatch)
    for mtu in (9000, 9000, 1500, 1400, None):
        tap = SimpleNamespace(name="ethws0", mtu=lambda mtu=mtu: mtu)
        version, (only,) = servers.connect(PROVED, tap=tap)
        assert version == 2
        assert only.offers()[1] == "Etherws-Features: v2" + (f", mtu={mtu}" if mtu else "")
    assert [record.getMessage() for record in caplog.records] == [
        f"the MTUs differ: {mtu} at ethws0 here, 1500 at the interface of ws://server.example:80. Larger frames can be"
        f" lost without an error; give both the lower one: --mtu {min(mtu, 1500)}"
        for mtu in (9000, 1400)
    ]


def target(text: str) -> str:
    uri, _, _ = split_uri(text)
    choice = ProxyChoice(None, None, None, 0, {})
    return RemoteServer(
        uri, DeviceSettings(), proxy_choice=choice, trust=Trust(), credentials=Credentials(None, None, None, None, None)
    ).target


def test_names_that_certainly_mean_the_same_server_have_one_target() -> None:
    assert {target(text) for text in ("ws://h", "ws://H/", "ws://u:p@h:80/", "ws://h./")} == {"h:80/"}
    others = ("ws://h", "wss://h", "ws://h:81", "ws://h/branch", "ws://[::1]/")
    assert len({target(text) for text in others}) == len(others)
