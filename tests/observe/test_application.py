"""What is asked at the two doors, and what is answered."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import gevent
import pytest

from etherws.events import JOIN, event
from etherws.log_limit import log_unexpected_errors
from etherws.observe import application, page
from tests.lab.doors import Doors, doors, read_all, read_until, request
from tests.lab.hosts import PATIENCE
from tests.lab.subjects import FakeServer


def test_health_and_readiness(opened: Doors) -> None:
    assert opened.ask("GET /healthz")[::2] == (200, b"ok\n")
    assert opened.ask("GET /readyz")[::2] == (200, b"ok\n")
    opened.subject.reason = "it is draining"
    assert opened.ask("GET /readyz", monitor=True)[::2] == (503, b"it is draining\n")
    assert opened.ask("GET /healthz").status == 200


def test_the_status_is_whole(opened: Doors) -> None:
    found = opened.ask("GET /status")
    assert found.headers["content-type"] == "application/json"
    assert len(found.json["sessions"]) == 3
    metrics = opened.ask("GET /metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert metrics.body.endswith(b"# EOF\n")
    assert b"client-1" not in metrics.body


def test_clients_have_metrics_of_their_own_if_asked_for(folder: Path) -> None:
    with doors(folder, monitor_clients=True) as opened:
        opened.log.info("joined", extra=event(JOIN))
        found = opened.ask("GET /metrics", monitor=True).body
        assert b'identity="client-1"' in found
        assert b'etherws_events_total{kind="join"} 1.0' in found


def test_every_answer_keeps_itself_to_itself(opened: Doors) -> None:
    for path in ("/healthz", "/status", "/events", "/", "/nothing", "/metrics"):
        headers = opened.ask(f"GET {path}").headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["connection"] == "close"
        assert headers["cache-control"].startswith("no-")
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


def test_events_are_asked_for_by_number(opened: Doors) -> None:
    opened.log.info("a joined", extra=event(JOIN, identity="a"))
    opened.log.info("b joined")
    found = opened.ask("GET /events").json
    assert [each["text"] for each in found["events"]] == ["a joined", "b joined"]
    assert found["left_out"] == 0
    number = found["events"][1]["number"]
    later = opened.ask(f"GET /events?since={number}").json
    assert [each["text"] for each in later["events"]] == ["b joined"]
    assert later["next"] == number + 1
    assert opened.ask(f"GET /events?since={number + 1}").json["events"] == []


@pytest.mark.parametrize("query", ["since=x", "since=-1", "since=" + "9" * 16, "since=", "since=1.5", "x&" * 20])
def test_a_query_that_makes_no_sense_is_refused(opened: Doors, query: str) -> None:
    found = opened.ask(f"GET /events?{query}")
    assert found.status == 400
    assert "error" in found.json


def test_events_are_followed(opened: Doors) -> None:
    opened.log.info("before")
    with opened.connect() as sock:
        sock.sendall(request("GET /events?follow=1"))
        data = read_until(sock, b"before")
        assert b"Content-Type: text/event-stream\r\n" in data
        opened.log.info("after")
        data += read_until(sock, b"after")
    assert data.count(b"\ndata: {") == 2
    number = int(data.rpartition(b"id: ")[2].partition(b"\n")[0])
    # A browser that connects again says what it has.
    with opened.connect() as sock:
        sock.sendall(request("GET /events", Accept="text/event-stream", Last_Event_ID=str(number - 1)))
        again = read_until(sock, b"after")
    assert b"before" not in again
    # Whose reader has gone ends at once, although nothing happens.
    with gevent.Timeout(PATIENCE):
        while opened.observation.streams.count:
            gevent.sleep(0.001)


def test_followers_leave_room_for_questions(opened: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "STREAMS_MAX", 2)
    socks = [opened.connect() for _ in range(3)]
    for sock in socks[:2]:
        sock.sendall(request("GET /events?follow=1"))
        read_until(sock, b"\r\n\r\n")
    socks[2].sendall(request("GET /events?follow=1"))
    assert b"503 Service Unavailable" in read_all(socks[2])
    assert opened.ask("GET /status").status == 200
    for sock in socks:
        sock.close()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of two files."""
    found = {
        "/": (
            "text/html",
            b"<html>",
            [("ETag", '"1"'), ("Content-Security-Policy", "default-src 'none'; x; frame-ancestors 'none'")],
        ),
        "login": ("text/html", b"<html> run: etherws page", []),
    }
    monkeypatch.setattr(page, "asset", found.get)


def test_the_page_and_its_files(opened: Doors, files: None) -> None:
    found = opened.ask("GET /")
    assert found.status == 200
    assert found.body == b"<html>"
    assert found.headers["content-security-policy"] == "default-src 'none'; x; frame-ancestors 'none'"
    tag = found.headers["etag"]
    again = opened.ask("GET /", If_None_Match=tag)
    assert (again.status, again.body) == (304, b"")
    assert opened.ask("GET /", If_None_Match='"other"').status == 200
    with opened.connect() as sock:
        sock.sendall(request("GET /stream"))
        read_until(sock, b"event: start")
    assert "step" in opened.ask("GET /history").json
    assert opened.ask("GET /history?index=99999").status == 404


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/page/../page.py",
            "/page/..%2fpage.py",
            "/page/%2e%2e/stream.py",
            "/page//etc/passwd",
            "/page/%00",
            "/page/",
        ),
        *("/page", "//", "/../../etc/passwd", "/status/", "/STATUS", "/login/", "/%ff", "/page/page.html%0d%0aX:%20y"),
    ],
)
def test_a_path_leads_nowhere_else(opened: Doors, path: str) -> None:
    found = opened.ask(f"GET {path}")
    assert found.status in (404, 405)
    assert "x" not in found.headers
    assert b"root" not in found.body


def test_head_is_get_without_a_body(opened: Doors) -> None:
    for path in ("/healthz", "/status", "/events?follow=1", "/nothing", "/"):
        data = opened.say(request(f"HEAD {path}"))
        assert data.endswith(b"\r\n\r\n"), path
        assert data.count(b"\r\n\r\n") == 1
    assert opened.observation.streams.count == 0


@pytest.mark.parametrize(
    ("what", "allowed"),
    [
        ("POST /status", "GET, HEAD"),
        ("PUT /kick", "POST"),
        ("GET /kick", "POST"),
        ("DELETE /events", "GET, HEAD"),
        ("OPTIONS /healthz", "GET, HEAD"),
        ("TRACE /stop", "POST"),
        ("GET /page", "POST"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(opened: Doors, what: str, allowed: str) -> None:
    found = opened.ask(what)
    assert (found.status, found.headers["allow"]) == (405, allowed)
    assert opened.subject.told == []


def test_orders_are_given_at_the_control_socket(opened: Doors) -> None:
    assert opened.ask("POST /kick", b'{"client": "client-1", "seconds": 600}').json == {"ended": ["client-1"]}
    assert opened.ask("POST /kick", b'{"client": "nobody"}').json == {
        "error": "no client is called 'nobody'; see 'etherws status'"
    }
    for order in ("reload", "stop"):
        assert opened.ask(f"POST /{order}").json == {}
    assert opened.ask("POST /drain", b'{"seconds": 300}').json == {}
    assert opened.subject.told == [
        ("kick", "client-1", 600.0, "the control socket"),
        ("reload",),
        ("stop",),
        ("drain", 300.0, "the control socket"),
    ]
    said = [each["text"] for each in opened.events.since(0)[0]]
    # The subject says what it does for a kick and for a drain, and who has asked.
    assert said == ["asked by the control socket to reload, as by SIGHUP", "asked by the control socket to stop"]


def test_the_page_is_opened_by_a_token_that_counts_once(opened: Doors, files: None) -> None:
    address = opened.ask("POST /page").json["address"]
    assert address.startswith(f"http://127.0.0.1:{opened.port}/login?token=")
    path = "/login" + address.partition("/login")[2]
    # What looks at an address before its reader does must not use it up.
    assert opened.ask(f"HEAD {path}", monitor=True).status == 200
    first = opened.ask(f"GET {path}", monitor=True)
    assert (first.status, first.headers["location"]) == (303, "/")
    cookie = first.headers["set-cookie"].partition(";")[0]
    assert opened.ask("GET /", monitor=True, Cookie=cookie).status == 200
    assert opened.ask("GET /status", monitor=True, Cookie=cookie).status == 200
    assert opened.ask(f"GET {path}", monitor=True).status == 401
    assert opened.ask("GET /login", monitor=True).status == 401
    assert opened.ask("GET /login?token=x").status == 404
    # The log has no token.
    assert path.partition("=")[2] not in str(opened.events.since(0))


def test_a_page_gives_orders_only_by_its_cookie(opened: Doors) -> None:
    order = b'{"client": "client-1"}'
    ours = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
    assert opened.ask("POST /kick", order, monitor=True, **ours).status == 401
    assert opened.ask("POST /kick", order, monitor=True, Cookie=opened.login()).status == 403
    foreign = {**ours, "Sec-Fetch-Site": "cross-site"}
    assert opened.ask("POST /kick", order, monitor=True, Cookie=opened.login(), **foreign).status == 403
    assert opened.subject.told == []
    found = opened.ask("POST /kick", order, monitor=True, Cookie=opened.login(), **ours)
    assert found.json == {"ended": ["client-1"]}
    # The address of the page is for who can open the control socket.
    assert opened.ask("POST /page", b"{}", monitor=True, Cookie=opened.login(), **ours).status == 403
    assert opened.subject.told == [("kick", "client-1", 0.0, f"--monitor 127.0.0.1:{opened.port}")]


def test_a_stranger_sees_a_way_to_log_in_and_no_more(opened: Doors, files: None) -> None:
    found = opened.ask("GET /", monitor=True)
    assert found.status == 401
    assert b"etherws page" in found.body
    browser = opened.ask("GET /", monitor=True, Accept="text/html,*/*")
    assert browser.status == 401
    assert browser.body == b"<html> run: etherws page"
    for path in ("/status", "/kick", "/page/page.js", "/nothing", "/page/../x"):
        assert opened.ask(f"GET {path}", monitor=True).status == 401
    assert "version" not in opened.ask("GET /status", monitor=True).json


def test_an_error_of_ours_is_logged_and_answered(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeServer):
        def not_ready(self) -> str:
            raise RuntimeError("odd")

        def sessions(self) -> Any:
            yield self.session(1)
            raise RuntimeError("odder")

    with doors(folder, Broken()) as opened, caplog.at_level(logging.ERROR):
        log_unexpected_errors()
        assert opened.ask("GET /readyz").status == 500
        # Whoever reads it sees that it is not whole.
        data = opened.say(request("GET /status"))
        assert not data.endswith(b"0\r\n\r\n")
        assert "RuntimeError: odder" in caplog.text
        assert opened.ask("GET /healthz").status == 200


def test_a_hostile_name_breaks_no_surface(folder: Path) -> None:
    words = "\x1b[2J<script>\r\nX: y\r\n\r\n\u202e" + "a" * 10_000

    class Hostile(FakeServer):
        def session(self, number: int) -> Any:
            return {**super().session(number), "identity": words}

    with doors(folder, Hostile()) as opened:
        opened.log.info("%s joined", words, extra=event(JOIN, identity=words))
        for path in ("/status", "/events", "/events?follow=1", "/history"):
            with opened.connect() as sock:
                sock.sendall(request(f"GET {path}"))
                data = read_until(sock, b"\r\n\r\n")
                with contextlib.suppress(TimeoutError), gevent.Timeout(0.05, TimeoutError()):
                    data += read_all(sock)
            body = data.partition(b"\r\n\r\n")[2]
            assert all(byte == 10 or byte == 13 or 0x20 <= byte < 0x7F for byte in data), path
            assert b"\r\nX: y" not in body
        assert opened.ask("GET /status").json["sessions"][0]["identity"] == words
        kick = opened.ask("POST /kick", json.dumps({"client": words[:300]}).encode())
        assert kick.status == 404
        assert all(0x20 <= byte < 0x7F for byte in kick.body.strip())
        opened.subject.kick = lambda client, seconds, door: [client]  # type: ignore[method-assign]
        assert opened.ask("POST /kick", json.dumps({"client": words[:300]}).encode()).json == {"ended": [words[:300]]}
