"""What connections to the doors may cost: how many, how long, how much; and what is no request."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from etherws.observe import http
from etherws.observe.http import CONNECTIONS_MAX, OF_ADDRESS_MAX
from etherws.server import visitor, waiting_list
from etherws.server.http import REQUEST_HEADERS_MAX, REQUEST_HEADERS_MAX_BYTES
from tests.lab.doors import Doors, doors, parse, read_all, read_until, request
from tests.lab.hosts import PATIENCE
from tests.lab.subjects import FakeServer

HEALTH = request("GET /healthz")


@pytest.fixture(scope="module")
def shared(control_folder: str) -> Iterator[Doors]:
    """Doors for the tests that leave them as they are."""
    with doors(Path(control_folder)) as found:
        yield found


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"GET\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/2.0\r\n\r\n",
        b"GET healthz HTTP/1.1\r\n\r\n",
        b"GET http://localhost/healthz HTTP/1.1\r\n\r\n",
        b"get /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /healthz HTTP/1.1\nHost: a\n\n",
        b"GET /healthz HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX: \x00\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX: a\rY: b\r\n\r\n",
        b"POST /stop HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /stop HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 2\r\n\r\n",
        b"POST /stop HTTP/1.1\r\nContent-Length: 1e1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n" * 9,
        b"\x00" * 100 + b"\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * (REQUEST_HEADERS_MAX + 1) + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nX: " + b"y" * REQUEST_HEADERS_MAX_BYTES + b"\r\n\r\n",
    ],
    ids=lambda data: ascii(data[:60]),
)
@pytest.mark.parametrize("monitor", [False, True])
def test_what_is_no_request_is_refused(shared: Doors, data: bytes, monitor: bool) -> None:
    found = shared.say(data, monitor=monitor)
    assert found.split(b" ")[1][:1] in (b"4", b"") if found else True
    assert shared.subject.told == []
    assert shared.ask("GET /healthz", monitor=monitor).status == 200


@pytest.mark.parametrize("monitor", [False, True])
def test_one_request_is_answered_on_each_connection(shared: Doors, monitor: bool) -> None:
    """So none is idle, and what comes behind one is not taken for another."""
    data = shared.say(HEALTH + request("POST /stop") + request("GET /status"), monitor=monitor)
    assert data.count(b"HTTP/1.1 ") == 1
    assert shared.subject.told == []
    assert b"200 OK" in shared.say(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", monitor=monitor)


def test_a_program_that_ends_its_sending_gets_its_answer(shared: Doors) -> None:
    with shared.connect() as sock:
        sock.sendall(request("GET /status"))
        sock.shutdown(1)
        assert len(parse(read_all(sock)).json["sessions"]) == 3


@pytest.mark.parametrize(
    "data",
    [request("POST /kick", b"x" * 1_000_000), request("POST /nothing", b"x" * 200_000)],
    ids=["order", "nothing"],
)
def test_a_long_body_is_not_read_and_the_answer_arrives(shared: Doors, data: bytes) -> None:
    with shared.connect(monitor=False) as sock:
        sender = gevent.spawn(sock.sendall, data)
        found = parse(read_all(sock))
        sender.join(PATIENCE)
    assert found.status in (404, 413)


def test_an_upgrade_is_no_way_around(shared: Doors) -> None:
    found = shared.ask("GET /status", Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Version="13")
    assert found.status == 200
    found = shared.ask("POST /kick", b'{"client": "nobody"}', Connection="Upgrade", Upgrade="websocket")
    assert found.status == 404
    assert shared.ask("GET /status", monitor=True, Connection="Upgrade", Upgrade="websocket").status == 401


def test_a_slow_head_has_an_end(opened: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor, "STEP_TIMEOUT", 0.05)
    for data in (b"", b"GET /healthz HTTP/1.1\r\nX", b"GET /healthz HTTP/1.1\r\nX: y\r\n"):
        with opened.connect(monitor=True) as sock:
            sock.sendall(data)
            assert b"200 OK" not in read_all(sock)


def test_a_slow_body_has_an_end(opened: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etherws.observe.orders.BODY_TIMEOUT", 0.05)
    with opened.connect() as sock:
        sock.sendall(b"POST /stop HTTP/1.1\r\nContent-Length: 10\r\n\r\n{")
        assert b"408 Request Timeout" in read_all(sock)
    assert opened.subject.told == []


def test_a_reader_that_takes_nothing_is_cut(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http, "SEND_TIMEOUT", 0.1)
    made = 0

    class Long(FakeServer):
        def sessions(self) -> Iterator[dict[str, Any]]:
            nonlocal made
            while True:
                made += 1
                yield self.session(1)

    with doors(folder, Long()) as opened, opened.connect() as sock:
        sock.sendall(request("GET /status"))
        read_until(sock, b"\r\n\r\n")
        ended = gevent.spawn(lambda: gevent.sleep(0))
        while True:
            before = made
            gevent.sleep(0.3)
            if made == before:
                break
        ended.join()
        # What the kernel has taken, and no more: it is cut.
        assert made < 100_000
        read_all(sock)
        assert opened.ask("GET /healthz").status == 200
    assert "Traceback" not in caplog.text
    assert "unexpected" not in caplog.text


def test_of_one_address_there_are_few(opened: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "remote_source", lambda address: "" if address == "127.0.0.1" else address)
    socks = [opened.connect(monitor=True, source="127.0.0.2") for _ in range(OF_ADDRESS_MAX)]
    for sock in socks:
        # It is accepted when it has a place.
        sock.sendall(b"GET /healthz HTTP/1.1\r\n")
    server = opened.observation.servers[0]
    with gevent.Timeout(PATIENCE):
        while server.of_address["127.0.0.2"] < OF_ADDRESS_MAX:
            gevent.sleep(0.001)
    with opened.connect(monitor=True, source="127.0.0.2") as one_more:
        one_more.sendall(HEALTH)
        found = parse(read_all(one_more))
    assert (found.status, found.headers["retry-after"]) == (503, "1")
    # Others are not concerned, and neither is who comes when one has gone.
    for source in ("127.0.0.3", "127.0.0.1"):
        with opened.connect(monitor=True, source=source) as sock:
            sock.sendall(HEALTH)
            assert read_all(sock)
    socks.pop().close()
    with gevent.Timeout(PATIENCE):
        while server.of_address["127.0.0.2"] == OF_ADDRESS_MAX:
            gevent.sleep(0.001)
    with opened.connect(monitor=True, source="127.0.0.2") as sock:
        sock.sendall(request("GET /healthz"))
        assert b"503" not in read_all(sock)
    for sock in socks:
        sock.close()
    with gevent.Timeout(PATIENCE):
        while server.of_address:
            gevent.sleep(0.001)


def test_strangers_leave_some_places_to_this_machine(opened: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "remote_source", lambda address: "" if address == "127.0.0.1" else address)
    monkeypatch.setattr(http, "REMOTE_MAX", 3)
    # None waits for a stranger to hang up, either: that would take a place of the pool.
    monkeypatch.setattr("etherws.server.front_door.DRAIN_TIMEOUT", 1000.0)
    server = opened.observation.servers[0]
    socks = []
    for number in (2, 3, 4):
        socks.append(opened.connect(monitor=True, source=f"127.0.0.{number}"))
        socks[-1].sendall(b"GET /healthz HTTP/1.1\r\n")
    with gevent.Timeout(PATIENCE):
        while server.of_address.total() < 3:
            gevent.sleep(0.001)
        for number in range(5, 10):
            socks.append(opened.connect(monitor=True, source=f"127.0.0.{number}"))
            assert read_all(socks[-1]).startswith(b"HTTP/1.1 503 ")
        while server.of_address.total() > 3:
            gevent.sleep(0.001)
    assert len(server.pool) == 3
    assert opened.ask("GET /healthz", monitor=True).status == 200
    for sock in socks:
        sock.close()


def test_who_says_nothing_makes_room_for_who_asks(opened: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_list, "GRACE", 0.02)
    monkeypatch.setattr("etherws.server.accepting.GRACE", 0.02)
    silent = [opened.connect() for _ in range(CONNECTIONS_MAX + 20)]
    assert opened.ask("GET /healthz").status == 200
    assert opened.ask("GET /healthz", monitor=True).status == 200
    for sock in silent:
        sock.close()


def test_the_number_of_connections_has_an_end(opened: Doors) -> None:
    """More wait in the kernel's queue until one has gone."""
    followers = []
    for _ in range(CONNECTIONS_MAX):
        followers.append(opened.connect())
        followers[-1].sendall(request("GET /events?follow=1"))
    pool = opened.observation.servers[-1].pool
    with gevent.Timeout(PATIENCE):
        # Those that find no place as a follower are told so, and end.
        while opened.observation.streams.count < 48:
            gevent.sleep(0.001)
    assert len(pool) <= CONNECTIONS_MAX
    assert opened.ask("GET /healthz").status == 200
    for sock in followers:
        sock.close()
    with gevent.Timeout(PATIENCE):
        while len(pool):
            gevent.sleep(0.001)


def test_at_the_end_all_are_cut(folder: Path) -> None:
    with doors(folder) as opened:
        socks = [opened.connect() for _ in range(3)]
        socks[0].sendall(request("GET /events?follow=1"))
        read_until(socks[0], b"\r\n\r\n")
        socks[1].sendall(b"GET /")
        opened.observation.close()
        for sock in socks:
            assert b"200 OK" not in read_all(sock)
            sock.close()
        assert not (folder / "control").exists()


def test_a_flood_of_events_costs_each_follower_a_bounded_share(opened: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten followers, 10,000 events: each gets the last thousand and a count of what it missed, however slow it is."""
    socks = [opened.connect() for _ in range(10)]
    for sock in socks:
        sock.sendall(request("GET /events?follow=1"))
        read_until(sock, b":\n\n")
    log = logging.getLogger("etherws.flood")
    for number in range(10_000):
        log.info("event %d", number)
    log.info("the last")
    for sock in socks:
        data = read_until(sock, b"the last")
        assert data.count(b"\ndata: ") <= 1002
        assert b'"kind": "gap"' in data
        sock.close()
