"""HTTP on one connection: what is read while we wait, what is a turn, and when nothing is done any more."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import gevent
import pytest
from gevent.pywsgi import WSGIServer

from etherws.server.front_door import Admitted, FrontDoor
from etherws.server.http import PRESENCE, Handler, speak_http
from etherws.settings import ServerSettings
from etherws.tunnel.scheduling import low_priority
from tests.lab.hosts import PATIENCE, Host
from tests.lab.peer import request
from tests.lab.sockets import gevent_pair
from tests.lab.turns import anothers_turn


class Site:
    """A server of one connection; its application notes each request, and answers with nothing."""

    def __init__(self, server: Any) -> None:
        server.application = self.application
        self.door = FrontDoor(ServerSettings(), None)
        self.requests: list[str] = []
        self.presences: list[Any] = []
        self.admitted: list[Admitted] = []
        self.ours, self.its = gevent_pair()
        self._speak = partial(speak_http, server)
        self.greenlet = gevent.spawn(self.door.admit, self.ours, "", self.speak)

    def speak(self, admitted: Admitted) -> None:
        self.admitted.append(admitted)
        self._speak(admitted)

    def application(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        # The turn has ended: the application may wait.
        assert low_priority._holder is None
        self.requests.append(environ["PATH_INFO"])
        self.presences.append(environ[PRESENCE])
        start_response("200 OK", [])
        return [b""]

    def silent(self) -> bool:
        """Whether we wait for the client."""
        return bool(self.admitted) and self.admitted[0].visitor._place.since is not None


@pytest.fixture
def site(host: Host) -> Iterator[Site]:
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        server = WSGIServer(("127.0.0.1", 0), None, handler_class=Handler, log=None)
        server.start()
        made = Site(server)
        yield made
        made.its.close()
        made.greenlet.join()
        server.stop()


def become_true(condition: Any) -> None:
    """Let other greenlets run until `condition()` is true. The fixture bounds the time."""
    while not condition():
        gevent.sleep(0.001)


def test_a_request_is_waited_for_to_its_last_byte_and_parsed_as_a_turn(site: Site) -> None:
    text = request("GET /one HTTP/1.1")
    for at in range(len(text) - 1):
        site.its.sendall(text[at : at + 1])
    become_true(site.silent)
    with anothers_turn():
        site.its.sendall(text[-1:])
        become_true(low_priority.waiting)
        # It waits for us now, so nobody hangs up on it.
        assert not site.silent()
        assert site.door.waiting.hang_up_on(1)[0] == 0
    assert site.its.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
    assert site.requests == ["/one"]
    assert site.presences == [site.admitted[0].visitor.presence]


def test_a_request_whose_client_hung_up_before_its_turn_is_not_even_parsed(site: Site) -> None:
    with anothers_turn():
        site.its.sendall(request())
        become_true(low_priority.waiting)
        site.its.close()
        site.greenlet.join()
        assert low_priority.waiting() == 0
    assert site.requests == []
    assert site.door.waiting.count == 0
    assert site.greenlet.successful()


@pytest.mark.parametrize(
    "data",
    [b"\x16\x03\x01\x00\xee\r\n", b"GET / HTTP/1.1\r\nno colon\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101],
    ids=["no request line", "no header", "too many headers"],
)
def test_what_is_wrong_is_refused_without_waiting_for_more(site: Site, data: bytes) -> None:
    site.its.sendall(data)
    assert site.its.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert site.requests == []
