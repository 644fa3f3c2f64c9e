"""What strangers send to --monitor and programs to the control socket: bytes, requests, and the bodies of orders."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.errors import NoSuchClient, Refused
from etherws.observe import orders
from etherws.observe.access import OPEN, MonitorAccess
from etherws.observe.application import Monitor
from etherws.observe.events import Events
from etherws.observe.logins import Digests, Logins, digest
from etherws.observe.stream import LivePage
from etherws.reloadable import Reloadable
from tests.lab.doors import Doors, doors, request
from tests.lab.subjects import FakeServer

TOKEN = "a-token-of-a-scraper"

words = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=30)
known = ["/", "/status", "/events", "/stream", "/history", "/login", "/kick", "/stop", "/page", *sorted(OPEN)]
paths = st.sampled_from(known) | words.map(lambda text: f"/{text}")
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"])
hosts = st.sampled_from(["127.0.0.1:9402", "localhost", "[::1]:9402", "evil.example", "192.0.2.1", ""]) | words
logins = (
    words
    | st.sampled_from(["Basic", f"Bearer {TOKEN}", TOKEN, f"basic {TOKEN}"])
    | words.map(lambda text: "Basic " + base64.b64encode(text.encode()).decode())
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "HTTP_HOST": hosts,
        "HTTP_ORIGIN": hosts.map(lambda host: f"http://{host}"),
        "HTTP_COOKIE": words | words.map(lambda text: f"etherws-9402={text}"),
        "HTTP_AUTHORIZATION": logins,
        "HTTP_SEC_FETCH_SITE": st.sampled_from(["same-origin", "cross-site", "none"]) | words,
        "HTTP_SEC_FETCH_MODE": st.sampled_from(["navigate", "cors"]) | words,
        "HTTP_X_FORWARDED_FOR": words,
        "HTTP_ACCEPT": words,
        "HTTP_LAST_EVENT_ID": words,
        "HTTP_IF_NONE_MATCH": words,
        "CONTENT_TYPE": st.sampled_from(["application/json", "text/plain"]) | words,
        "CONTENT_LENGTH": st.sampled_from(["0", "2", "4096"]),
        "QUERY_STRING": words | st.sampled_from(["token=", "token=x", "since=1", "follow=1", "index=3"]),
    },
)


class Door:
    """--monitor without a socket."""

    def __init__(self) -> None:
        self.subject, self.now = FakeServer(), 0.0
        events = Events()
        tokens: Reloadable[Digests] = Reloadable(lambda: (digest(TOKEN), digest("another")), [])
        access = MonitorAccess("127.0.0.1:9402", [], Logins("etherws-9402", tokens), clock=self.clock)
        self.application = Monitor(self.subject, events, access, LivePage(self.subject, events))

    def clock(self) -> float:
        """Each question comes an hour after the one before: no limit hides what it would be answered."""
        self.now += 3600
        return self.now

    def ask(self, environ: dict[str, Any]) -> tuple[str, dict[str, str]]:
        """The status and the headers of the answer."""
        said: list[Any] = []
        self.application(environ, lambda status, headers: said.extend((status, dict(headers))))
        return said[0], said[1]


@given(methods, paths, headers, st.sampled_from(["127.0.0.1", "192.0.2.7", "::1", "2001:db8::7"]))
def test_a_stranger_learns_nothing(method: str, path: str, more: dict[str, str], address: str) -> None:
    door = Door()
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "REMOTE_ADDR": address,
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(b"{}"),
        **more,
    }
    status, answer = door.ask(environ)
    assert door.subject.told == []
    assert "Set-Cookie" not in answer
    assert not any("\r" in value or "\n" in value for value in answer.values())
    local = address in ("127.0.0.1", "::1") and "HTTP_X_FORWARDED_FOR" not in more
    if status[0] in "23":
        asked_open = path in OPEN and local and method in ("GET", "HEAD")
        assert asked_open or (path == "/login" and method == "HEAD")
    else:
        assert status[:3] in ("401", "403", "421", "429")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
said = st.dictionaries(st.sampled_from(["client", "seconds", "over", ""]), json_values, max_size=3)
bodies = st.binary(max_size=200) | said.map(lambda values: json.dumps(values).encode())


@given(st.sampled_from(sorted(orders.ORDERS)), bodies)
def test_an_order_is_followed_or_refused(path: str, body: bytes) -> None:
    subject = FakeServer()
    environ = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    try:
        orders.ORDERS[path](subject, orders.read(environ), "a test")
    except Refused as exc:
        assert exc.status.startswith("400 ")
        assert subject.told == []
    except NoSuchClient:
        assert subject.told == []
    else:
        assert [told[0] for told in subject.told] == [path[1:]]
        assert all(
            0 <= value <= orders.SECONDS_MAX for told in subject.told for value in told if isinstance(value, float)
        )


@pytest.fixture(scope="module")
def opened(control_folder: str) -> Iterator[Doors]:
    """Both doors."""
    folder = Path(control_folder) / "fuzz"
    folder.mkdir()
    with doors(folder) as found:
        yield found


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request, whole or damaged, or any bytes."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=300)) + draw(st.sampled_from([b"", b"\r\n\r\n"]))
    what = f"{draw(methods)} {draw(st.sampled_from(['/healthz', '/status', '/stop', '/page', '/none']))}"
    data = request(
        what, draw(st.none() | st.binary(max_size=20)), **draw(st.dictionaries(st.just("X"), words, max_size=1))
    )
    at = draw(st.integers(0, len(data)))
    how = draw(st.sampled_from(["whole", "cut", "byte"]))
    if how == "whole":
        return data
    return data[:at] if how == "cut" else data[:at] + draw(st.binary(min_size=1, max_size=2)) + data[at + 1 :]


@given(requests())
def test_any_bytes_get_one_answer_or_none(opened: Doors, data: bytes) -> None:
    before = len(opened.subject.told)
    for monitor in (True, False):
        with opened.connect(monitor=monitor) as sock:
            sock.sendall(data)
            sock.shutdown(1)
            found = b""
            while more := sock.recv(65536):
                found += more
        assert found.count(b"HTTP/1.1 ") <= 1
        if found:
            assert found.startswith(b"HTTP/1.1 ")
            assert found[9:12] != b"500"
        if monitor:
            assert len(opened.subject.told) == before
    assert opened.ask("GET /healthz").status == 200
