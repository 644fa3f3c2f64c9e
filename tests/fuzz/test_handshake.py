"""Upgrade requests: the server's HTTP and its handshake against the websockets library's."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.pywsgi import WSGIServer
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.server import ServerProtocol

from etherws import features
from etherws.server.http import UPGRADE, Handler
from etherws.server.negotiation import negotiate
from etherws.settings import ServerSettings
from etherws.wsgi import Application
from tests.lab.environ import environ
from tests.lab.fuzz import conversation, cuts, pieces
from tests.lab.peer import GOOD, KEY


class Gate(Application):
    """Lets clients in and sends back what came behind the request, instead of giving them a TAP."""

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__(settings)
        self._tunnels.run = self._run  # type: ignore[assignment, method-assign]

    def _run(self, environ: dict[str, Any], headers: list[tuple[str, str]], *_: Any) -> None:
        sock, early = environ[UPGRADE](headers)
        sock.sendall(early)


@pytest.fixture(scope="module")
def http() -> Iterator[Callable[[Any], object]]:
    """What a server does with a connection, without a port to come to. Nothing may end in a traceback."""
    server = WSGIServer(("127.0.0.1", 0), Gate(ServerSettings()), handler_class=Handler, log=None)
    hub = gevent.get_hub()
    before, hub.exception_stream = hub.exception_stream, io.StringIO()
    try:
        yield lambda sock: server.handle(sock, ("192.0.2.1", 1))  # type: ignore[arg-type]
        assert hub.exception_stream.getvalue() == ""
    finally:
        hub.exception_stream = before


def decorated(name: str, upper: bool, blanks: str) -> Callable[[str], str]:
    """A header line in one of its dresses."""
    return lambda value: f"{name.upper() if upper else name.lower()}:{blanks}{value}{blanks}"


names = st.text("abcdefghijklmnopqrstuvwxyz-0123456789!#$%&'*+.^`|~", min_size=1, max_size=12).map("x-".__add__)
values = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=30)
blanks = st.sampled_from(["", " ", "\t", "  "])


@given(
    dresses=st.lists(st.tuples(st.booleans(), blanks), min_size=len(GOOD), max_size=len(GOOD)),
    more=st.lists(st.tuples(names, values), max_size=5),
    order=st.randoms(use_true_random=False),
    early=st.binary(max_size=300),
    cuts=cuts,
)
def test_a_proper_request_is_let_in_whatever_its_dress(
    http: Callable[[Any], object],
    dresses: list[tuple[bool, str]],
    more: list[tuple[str, str]],
    order: Any,
    early: bytes,
    cuts: list[int],
) -> None:
    lines = [decorated(name, *dress)(value) for (name, value), dress in zip(GOOD.items(), dresses, strict=True)]
    lines += [f"{name}: {value}" for name, value in more]
    order.shuffle(lines)
    head = "\r\n".join(["GET / HTTP/1.1", *lines, "", ""]).encode("latin-1")
    answer = conversation([*pieces(head, cuts)[:-1], pieces(head, cuts)[-1] + early], http)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert answer.partition(b"\r\n\r\n")[2] == early


lines = st.one_of(
    st.sampled_from([f"{name}: {value}\r\n".encode() for name, value in GOOD.items()]),
    st.builds(
        lambda name, value, end: name.encode() + b":" + value + end,
        st.sampled_from([*GOOD, "Content-Length", "Transfer-Encoding", "Expect", "X"]),
        st.sampled_from([b"websocket", b" upgrade", b"13", b"0", b"5", b"+5", b"chunked", b"100-continue", b""])
        | st.binary(max_size=20),
        st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r", b""]),
    ),
    st.binary(max_size=20),
)
firsts = st.sampled_from([b"GET / HTTP/1.1\r\n"] * 6 + [b"POST / HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"GET /\r\n"])
right = st.just([f"{name}: {value}\r\n".encode() for name, value in GOOD.items()])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request with a few wrong things in it: lines more, less or changed, a byte changed, cut short."""
    head = draw(right)
    for at, line in draw(st.lists(st.tuples(st.integers(0, len(GOOD)), lines), max_size=3)):
        head = [*head[:at], line, *head[at + draw(st.integers(0, 1)) :]]
    data = bytearray(draw(firsts | st.binary(max_size=30)) + b"".join(head) + b"\r\n")
    at = draw(st.integers(0, len(data)))
    if draw(st.booleans()):
        data[at : at + draw(st.integers(0, 1))] = draw(st.binary(max_size=1))
    elif draw(st.booleans()):
        del data[at:]
    return bytes(data)


@given(data=requests() | st.binary(max_size=200), cuts=cuts)
@example(data=b"", cuts=[])
@example(data=b"\r\n" * 50, cuts=[])
def test_any_request_is_let_in_by_right_or_refused_with_a_word(
    http: Callable[[Any], object], data: bytes, cuts: list[int]
) -> None:
    answer = conversation(pieces(data, cuts), http)
    if not answer.startswith(b"HTTP/1.1 101 "):
        # None at all to half a request, since TCP's end came instead of the rest.
        assert not answer or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"HTTP/1.1 405 ", b"HTTP/1.1 426 "))
        return
    library = ServerProtocol()
    library.receive_data(data)
    request = library.events_received()[0]
    assert isinstance(request, Request)
    assert data.startswith(b"GET / HTTP/1.1\r\n")
    assert len(request.headers.get_all("Host")) == 1
    # Of these it takes no list with anything odd in it.
    for name, token in (("Upgrade", "websocket"), ("Connection", "upgrade")):
        assert token in re.split("[ \t]*,[ \t]*", ",".join(request.headers.get_all(name)).lower().strip(" \t"))
        del request.headers[name]
        request.headers[name] = token
    library_answer = library.accept(request)
    assert library_answer.status_code == 101, library_answer.body
    assert f"Sec-WebSocket-Accept: {library_answer.headers['Sec-WebSocket-Accept']}\r\n".encode() in answer


def read(text: str) -> dict[str, str] | None:
    """A list of features, read character by character as docs/wire.rst has it; None if it breaks a rule."""
    found: dict[str, str] = {}
    for feature in text.split(","):
        items = [item.lstrip(" ") if at else item for at, item in enumerate(feature.strip(" \t").split(";"))]
        for item in items:
            name, equals, value = item.partition("=")
            if not name or name[0] not in LOWER + "*" or set(name) - set(LOWER + "0123456789_-.*"):
                return None
            if bool(equals) != bool(value) or any(not "!" <= char <= "~" or char == '"' for char in value):
                return None
        name = items[0].partition("=")[0]
        if name in found:
            return None
        found[name] = ";".join(items)[len(name) :]
    return found if len(text) <= 1024 and len(found) <= 32 else None


LOWER = "abcdefghijklmnopqrstuvwxyz"
feature_texts = st.lists(
    st.sampled_from(
        ["v2", "mtu", "proof", "=", "=1500", "=:", ",", ", ", "\t", ";", "; ", "x*", "*", "A", '"', "\xff", "9"]
    )
    | st.text(st.characters(codec="latin-1"), max_size=3)
    | st.just("a" * 500)
    | st.just("".join(f"a{at}," for at in range(31))),
    max_size=20,
).map("".join)


@given(text=feature_texts, mtu=st.none() | st.integers(68, 65521))
@example(text="v2;a= 1", mtu=None)
def test_any_list_of_features_is_read_by_the_specification(text: str, mtu: int | None) -> None:
    expected = read(text)
    assert features.parse(text) == expected
    assert features.proved(KEY, text) is None
    agreed = negotiate(environ(HTTP_SEC_WEBSOCKET_PROTOCOL="etherws.v2", HTTP_ETHERWS_FEATURES=text), 2, None, mtu)
    answer = dict(agreed.headers).get("Etherws-Features")
    stripped = read(text.strip(" \t"))
    if stripped is None or "v2" not in stripped:
        assert (agreed.version.number, answer) == (1, None)
        assert agreed.doubt.isprintable()
    else:
        assert agreed.version.number == 2
        told = {} if mtu is None or "mtu" not in stripped else {"mtu": f"={mtu}"}
        assert features.proved(KEY, answer or "") == {"v2": "", **told}
