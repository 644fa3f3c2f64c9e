"""What a server or a proxy answers to the client: heads of HTTP, challenges, CONNECT, SOCKS5, the upgrade."""

from __future__ import annotations

import re
from typing import Any
from urllib.request import parse_http_list

import gevent
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etherws import features
from etherws.client import http_auth, proxies
from etherws.client.answer_text import WORDS_MAX, words
from etherws.client.attempt import RemoteServer
from etherws.client.credentials import Credentials
from etherws.client.http_answer import BODY_MAX, HEAD_MAX, INTERIM_MAX, Body, HttpAnswer, read_answer, read_body
from etherws.client.proxy_choice import Proxy, ProxyChoice
from etherws.client.refusals import refusal
from etherws.client.uris import split_uri
from etherws.errors import ConnectError
from etherws.server.handshake import accept_value
from etherws.settings import DeviceSettings, Trust
from etherws.tunnel.connection import Connection
from etherws.tunnel.wire import Buffer
from tests.lab.fuzz import cuts, pieces
from tests.lab.streams import FakeStream

status_lines = st.sampled_from(
    [
        *(b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 407 x"),
        *(b"HTTP/1.1 401 x", b"HTTP/1.1 503 Busy", b"HTTP/1.1 302 x", b"HTTP/1.1 999 x", b"HTTP/1.1 099 x"),
        *(b"HTTP/2 200", b"ICY 200 OK", b""),
    ]
)
interims = st.sampled_from([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103\r\nLink: </a>; rel=preload\r\n\r\n"])
names = st.sampled_from(
    ["Proxy-Authenticate", "WWW-Authenticate", "proxy-authenticate", "Location", "Retry-After", "X"]
)
names |= st.sampled_from(["Upgrade", "Connection", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Content-Length"])

tokens = st.text("abcdefghijklmnopqrstuvwxyz-0123456789!#$%&'*+.^`|~", min_size=1, max_size=8)
parameter_names = st.sampled_from(["realm", "nonce", "qop", "algorithm", "opaque", "stale", "domain"]) | tokens
quoted = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=12).map(
    lambda text: '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
)
parameters = st.builds(
    "{}={}".format, parameter_names, tokens | quoted | st.sampled_from(["auth", '"auth,auth-int"', "SHA-256"])
)
challenges = st.builds(
    lambda scheme, found: f"{scheme} {', '.join(found)}",
    st.sampled_from(["Basic", "Digest", "digest", "NTLM", "Negotiate", "Bearer"]),
    st.lists(parameters, max_size=5),
)
values = st.one_of(
    challenges,
    challenges,
    st.lists(challenges, max_size=3).map(", ".join),
    st.sampled_from(["websocket", "Upgrade", "etherws.v2", "5", "0", "9" * 5000, "+5", "", ",", '"', "\xa0", "\x85"]),
    st.text(st.characters(codec="latin-1"), max_size=30),
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """The head of an answer, mostly right, with its blank line."""
    lines = [draw(status_lines)]
    for name, value in draw(st.lists(st.tuples(names, values), max_size=5)):
        lines.append(name.encode() + draw(st.sampled_from([b": ", b":", b" : "])) + value.encode("latin-1"))
    data = b"\r\n".join(lines) + b"\r\n\r\n"
    at = draw(st.integers(0, len(data)))
    return draw(st.sampled_from([data, data, data, data[:at], data[:at] + b"\n" + data[at:], data + bytes(HEAD_MAX)]))


def final(data: bytes) -> tuple[bytes, bytes] | None:
    """The first head that is not interim, and what follows it, by RFC 9110, section 15.2; None if there is none."""
    read = 0
    for _ in range(INTERIM_MAX + 1):
        head, end, rest = data.partition(b"\r\n\r\n")
        read += len(head) + len(end)
        if not end or read > HEAD_MAX:
            return None
        if not re.match(rb"HTTP/1\.[01] 1(?!01)\d\d(?![^ \r])", head):
            return head, rest
        data = rest
    return None


@given(
    st.lists(heads() | interims, max_size=3).map(b"".join) | st.binary(max_size=100),
    st.binary(max_size=10),
    cuts,
    st.booleans(),
)
@example(b"HTTP/1.1 103 x\r\nLink: y\r\n\r\n" * 9, b"", [], False)
def test_the_final_answer_ends_at_its_blank_line(data: bytes, behind: bytes, cuts: list[int], exact: bool) -> None:
    data += behind
    stream = FakeStream(*(piece for piece in pieces(data, cuts) if piece), b"")
    expected = final(data)
    try:
        answer = read_answer(stream.recv, hint="hint", exact=exact)
    except ConnectError as exc:
        assert expected is None
        assert str(exc).endswith("hint")
        return
    left = answer.rest
    while stream.unread() and (more := stream.recv(100)):
        left += more
    if not answer.head.startswith(b"HTTP/"):
        # What is not HTTP is not waited for.
        assert data.endswith(answer.head + left) or expected == (answer.head, left)
        assert answer.status is None
        return
    assert expected == (answer.head, left)
    assert not (exact and answer.rest)
    found = re.match(rb"HTTP/1\.[01] (\d\d\d)(?![^ \r])", answer.head)
    assert answer.status == (int(found[1]) if found else None)
    assert answer.status_text.isprintable()
    assert len(answer.values("x")) <= answer.head.count(b"\r\n")


framings = st.sampled_from(
    ["Content-Length: 12", "Content-Length: -1", "Transfer-Encoding: chunked", "Content-Encoding: gzip", "X: y"]
)
types = st.sampled_from(["text/plain", "text/html; charset=x", "application/json", "image/png", "", "\xff"])
bodies = st.lists(
    st.sampled_from(
        [b"<title>", b"</title>", b"<!doctype html>", b"&#x202e;", b"\x1b[2J", b"\r\n", b"5\r\n", b"ff;x\r\n"]
    )
    | st.binary(max_size=20)
    | st.text(max_size=20).map(lambda text: text.encode()),
    max_size=8,
).map(b"".join)


@given(st.lists(framings, max_size=2), types, bodies, cuts, st.booleans())
@example(["Transfer-Encoding: chunked"], "text/plain", b"1\r\na\r\n" * 3000, [1, 2, 3], False)
@example([], "text/html", b"<title" * 3000, [], False)
def test_the_words_of_any_body_are_one_short_line(
    framing: list[str], kind: str, data: bytes, cuts: list[int], early: bool
) -> None:
    head = "\r\n".join(["HTTP/1.1 400 x", f"Content-Type: {kind}", *framing]).encode("latin-1")
    body = Body(HttpAnswer(head, data[:7] if early else b""))
    stream = FakeStream(*(piece for piece in pieces(data[7:] if early else data, cuts) if piece), b"")
    read_body(stream.recv, body)
    assert len(body.data) <= BODY_MAX
    found = words(HttpAnswer(head), bytes(body.data), ("secret",))
    assert len(found) <= WORDS_MAX
    assert found.isprintable()
    assert "secret" not in found
    assert refusal(HttpAnswer(head), URI, body=bytes(body.data)).kind == refusal(HttpAnswer(head), URI, body=b"").kind


@given(st.lists(values, max_size=3))
@example(['Digest realm="' + "\\" * 5000])
@example(["a " * 5000])
@example(["," * 5000 + '"'])
def test_any_challenges_are_answered_in_one_line_or_not_at_all(texts: list[str]) -> None:
    found = http_auth.parse(texts)
    for scheme, held in found:
        assert re.fullmatch(r"[^\s,\"]+", scheme)
        assert all(name == name.lower() for name in held)
    answer = http_auth.answer(found, "user", "secret", method="CONNECT", uri="h:1", cnonce="0")
    assert answer is None or answer.split(" ")[0] in ("Basic", "Digest")


@given(
    st.lists(
        st.tuples(parameter_names, st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=12)),
        max_size=5,
    )
)
def test_the_parameters_of_a_challenge_are_those_that_were_sent(pairs: list[tuple[str, str]]) -> None:
    text = ", ".join('{}="{}"'.format(name, re.sub(r'(["\\])', r"\\\1", value)) for name, value in pairs)
    assert len(parse_http_list(text)) == len(pairs)
    if pairs:
        assert http_auth.parse([f"Digest {text}"]) == [("Digest", {name.lower(): value for name, value in pairs})]


URI, _, _ = split_uri("ws://server.example/")

PROXY = Proxy("http", "proxy", 8080, "user", "secret")


@given(st.lists(heads(), min_size=1, max_size=3), cuts)
def test_an_http_proxy_connects_or_says_why_not(answers: list[bytes], cuts: list[int]) -> None:
    streams: list[FakeStream] = []

    def connect() -> Any:
        data = answers[len(streams) % len(answers)]
        streams.append(FakeStream(*(piece for piece in pieces(data, cuts) if piece), b""))
        return streams[-1]

    try:
        stream = proxies.http_connect(PROXY, "server.example", 443, connect)
    except ConnectError as exc:
        assert str(exc).isprintable()
        assert "secret" not in str(exc)
        assert all("close" in stream.ends for stream in streams)
    else:
        assert stream is streams[-1]
        assert "close" not in streams[-1].ends
    assert len(streams) <= 3
    for used in streams:
        # One request each, and no line that the proxy could have put in.
        assert bytes(used.sent).count(b"\r\n\r\n") == 1
        lines = bytes(used.sent).split(b"\r\n")
        assert all(re.match(rb"CONNECT server\.example:443 HTTP/1\.1$|[A-Za-z-]+: ", line) for line in lines[:-2])
        assert not any(b"\n" in line or b"\r" in line or b"\0" in line for line in lines)


def expected_socks(data: bytes, methods: bytes) -> int | None:
    """How many bytes of a proxy's answers belong to SOCKS5, by RFC 1928 and 1929; None if it does not connect."""
    if len(data) < 2 or data[0] != 5 or data[1] not in methods:
        return None
    at = 2
    if data[1] == 2:
        if data[at + 1 : at + 2] != b"\0":
            return None
        at += 2
    if data[at + 1 : at + 2] != b"\0" or len(data) < at + 4:
        return None
    kind = data[at + 3]
    at += 4
    if kind in (1, 4):
        at += {1: 4, 4: 16}[kind]
    elif len(data) > at:
        at += 1 + data[at]
    else:
        return None
    return at + 2 if at + 2 <= len(data) else None


socks = st.builds(
    lambda parts, tail: b"".join(parts) + tail,
    st.tuples(
        st.sampled_from([b"\5\0", b"\5\2", b"\5\2\1\0", b"\5\2\1\1", b"\5\xff", b"\4\0"]),
        st.sampled_from(
            [b"\5\0\0\1" + bytes(6), b"\5\0\0\4" + bytes(18), b"\5\0\0\3\4host\0\0", b"\5\1\0\1", b"\5\0\0\0"]
        ),
    ),
    st.binary(max_size=6),
)


@given(socks | st.binary(max_size=40), cuts, st.booleans())
def test_a_socks_proxy_connects_or_says_why_not(data: bytes, cuts: list[int], login: bool) -> None:
    proxy = PROXY if login else Proxy("socks5", "proxy", 1080)
    expected = expected_socks(data, b"\0\2" if login else b"\0")
    stream = FakeStream(*(piece for piece in pieces(data, cuts) if piece), b"")
    try:
        proxies.socks5_connect(proxy, "server.example", 443, stream)
    except ConnectError as exc:
        assert expected is None
        assert "secret" not in str(exc)
        return
    left = b""
    while more := stream.recv(100):
        left += more
    assert expected is not None
    assert left == data[expected:]


class Server(RemoteServer):
    """Answers an upgrade request without a network."""

    def answer(self, stream: Any) -> Connection:
        """What the client makes of the answer that the stream holds."""
        return self._upgrade(stream, None, gevent.Timeout())[0]


@pytest.fixture(scope="module")
def server() -> Server:
    return Server(
        split_uri("ws://server.example/")[0],
        DeviceSettings(),
        proxy_choice=ProxyChoice(None),
        trust=Trust(),
        credentials=Credentials(),
    )


class Answering(FakeStream):
    """Answers a request, with the right value in place of ACCEPT."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self._answer = answer

    def sendall(self, data: Buffer) -> None:
        """See Stream."""
        super().sendall(data)
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", self.sent)
        assert key
        answer = self._answer.replace(b"ACCEPT", accept_value(key[1].decode()).encode())
        answer = answer.replace(b"PROVED", features.answer(key[1].decode(), {"v2": ""}).encode())
        self.feed(*([answer] if answer else []), b"")


def upgraded(lines: list[str]) -> bytes:
    """A 101 that is right but for these header lines more."""
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode("latin-1")


RIGHT = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: ACCEPT"]
right_or_wrong = st.sampled_from([RIGHT, RIGHT, RIGHT, RIGHT[1:], RIGHT[:2], [line.upper() for line in RIGHT]])
more_lines = st.lists(st.builds("{}: {}".format, names, values), max_size=2)
VERSION_2 = "Sec-WebSocket-Protocol: etherws.v2"
offers = st.sampled_from(
    [
        *([], [VERSION_2], [VERSION_2, "Etherws-Features: PROVED"], ["Etherws-Features: PROVED"]),
        *([VERSION_2, "Etherws-Features: v2"], [VERSION_2, "Etherws-Features: PROVED", "Etherws-Features: x"]),
        *(["Sec-WebSocket-Protocol: x"], ["X: y"], ["Sec-"]),
    ]
)
good = st.builds(lambda lines, offer, more: upgraded([*lines, *offer, *more]), right_or_wrong, offers, more_lines)


@given(good | heads() | st.binary(max_size=100), st.binary(max_size=9))
def test_an_answer_to_the_upgrade_is_a_connection_or_an_error(server: Server, data: bytes, behind: bytes) -> None:
    stream = Answering(data + behind)
    try:
        connection = server.answer(stream)
    except ConnectError as exc:
        assert str(exc).isprintable()
        assert 0 <= exc.wait < 1e9
        return
    assert data.startswith(b"HTTP/1.1 101 ")
    assert b"ACCEPT" in data
    chosen = re.search(rb"(?i)\r\nSec-WebSocket-Protocol:[ \t]*etherws\.v2[ \t]*\r\n", data)
    proofs = re.findall(rb"(?i)\r\nEtherws-Features:[ \t]*(.*?)[ \t]*\r\n", data)
    assert connection.wire.number == (2 if chosen and proofs == [b"PROVED"] else 1)
    connection.close(None)
