"""Tunnels to their end: what comes with the 101, and what a client leaves in memory when it has gone."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType

import gevent
import pytest

from etherws.server import comings
from etherws.server.http import Handler
from etherws.server.port import State
from etherws.server.ports import Ports
from etherws.server.serve import Server, tls_contexts
from etherws.server.takeover import Headers
from etherws.settings import ServerSettings
from etherws.tunnel.padding import Grants, Rate
from etherws.wsgi import Application
from tests.lab.frames import frame
from tests.lab.hosts import PATIENCE, Host
from tests.lab.peer import VERSION_2, Peer, masked, request
from tests.lab.pki import Certificate

#: Where the classes are of which nothing may be left.
OURS = (
    *("etherws.", "geventwebsocket.", "gevent.pywsgi.", "gevent._socket3.", "gevent._gevent_cgreenlet."),
    *("pyroute2.", "asyncio.", "_asyncio."),
)

#: What the kernel is to enforce where a policy says all that it can.
POLICY = """
[default]
rate-up = "1 Gbit/s"
rate-down = "10 Mbit/s"
group-rate = 100
isolated = true
macs = 2
addresses = ["192.0.2.0/24", "2001:db8::/32"]
drop = ["bpdu", "dhcp-server", "router-advertisement"]
"""

#: The ways in which a client comes and goes.
WAYS = ("version 1", "version 2", "link", "resumed link", "cut", "refused", "no request")

#: What a request has beside GOOD that begins a link of several connections.
LINK = {**VERSION_2, "Etherws_Features": "v2, mtu=1500, link=0;of=2;id=AAAAAAAAAAAAAAAAAAAAAA;new"}

#: The same with what a link needs to be given: a token by which it is resumed.
RESUMED_LINK = {**LINK, "Etherws_Resume": "A" * 22}


class Site:
    """A server in this process, and its clients in threads."""

    def __init__(
        self, host: Host, certificate: Certificate | None, policy: str | None = None, *, padding: bool = True
    ) -> None:
        """With the file of a `policy`, it has a bridge, too."""
        bridge = policy and "br0"
        self.application = Application(
            ServerSettings(device="ethws%d", resume_timeout=0, bridge=bridge, policy=policy, padding=padding)
        )
        self._host, self._tls = host, certificate is not None
        contexts = tls_contexts(str(certificate.cert), str(certificate.key), None) if certificate else None
        self._server = Server(("127.0.0.1", 0), self.application, contexts)
        self._server.start()
        self.application.start()

    def close(self) -> None:
        """End it."""
        self._server.stop()
        self.application.stop()

    def peer(self) -> Peer:
        """A client's connection. For a thread."""
        address: tuple[str, int] = self._server.address  # type: ignore[assignment]
        return Peer(self._host, address, tls=self._tls)

    def visits(self, way: str) -> None:
        """Some clients come and go."""
        address: tuple[str, int] = self._server.address  # type: ignore[assignment]
        for _ in range(3):
            gevent.get_hub().threadpool.apply(lambda: self._visit(Peer(self._host, address, tls=self._tls), way))
            # There is one port, which the next client needs.
            ports = self.application.ports
            assert isinstance(ports, Ports)
            while self.application.tunnels or {port.state for port in ports} != {State.FREE}:
                gevent.sleep(0.001)
        # The greenlets of connections end a moment later.
        while self._server.front_door.waiting.count:
            gevent.sleep(0.001)
        gevent.idle()
        # Once a second it forgets who has left. Whom it still knows is no garbage, whatever leads to him.
        self.application._tunnels._review.look()

    def agrees(self, count: int = 1) -> list[bool]:
        """So many clients offer padding, one after the other: whether each gets it."""
        address: tuple[str, int] = self._server.address  # type: ignore[assignment]
        heads: list[bytes] = []

        def ask() -> None:
            peer = Peer(self._host, address, tls=self._tls)
            peer.say(request(**{**VERSION_2, "Etherws_Features": "v2, padding"}))
            heads.append(peer.head())
            peer.say(masked(0x88, b"\x03\xe8"))
            peer.rest()
            peer.close()

        for _ in range(count):
            gevent.get_hub().threadpool.apply(ask)
        return [b"Etherws-Features: v2, padding, proof=" in head for head in heads]

    def hears(self, wanted: bytes) -> None:
        """A client comes, and waits for this frame."""
        address: tuple[str, int] = self._server.address  # type: ignore[assignment]

        def hear() -> None:
            peer = Peer(self._host, address, tls=self._tls).upgraded()
            while peer.frame() != (0x82, wanted):
                pass
            peer.say(masked(0x88, b"\x03\xe8"))
            peer.rest()

        gevent.get_hub().threadpool.apply(hear)

    def _visit(self, peer: Peer, way: str) -> None:
        if way == "cut":
            peer.upgraded().reset()
        elif way == "refused":
            peer.say(request("GET /nowhere HTTP/1.1"))
            assert peer.head().startswith(b"HTTP/1.1 404 ")
        elif way == "no request":
            peer.say(b"nothing\r\n")
            peer.rest()
        else:
            peer.say(request(**{"version 2": VERSION_2, "link": LINK, "resumed link": RESUMED_LINK}.get(way, {})))
            assert peer.head().startswith(b"HTTP/1.1 101 ")
            # A frame and a Close.
            peer.say((masked(0x82, bytes(60)) if way == "version 1" else b"") + masked(0x88, b"\x03\xe8"))
            peer.rest()
        peer.close()


@pytest.fixture(params=["ws", "wss", "policy"])
def site(host: Host, certificate: Certificate, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        made = Site(
            host,
            certificate if request.param == "wss" else None,
            str(policy) if request.param == "policy" else None,
        )
        yield made
        made.close()


def name_of(thing: object) -> str:
    """The class of a thing; of a frame, whose code it is: other tests leave some as well."""
    if isinstance(thing, FrameType):
        return str(thing.f_globals.get("__name__"))
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def left(do: Callable[[], object]) -> Counter[str]:
    """What do() has left that only a search finds, by class: of OURS alone."""
    debug = gc.get_debug()
    gc.collect()
    gc.disable()
    # What other tests have left may end meanwhile.
    gc.freeze()
    try:
        do()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return Counter(name for each in gc.garbage if (name := name_of(each)).startswith(OURS))
    finally:
        gc.set_debug(debug)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()


def test_who_has_come_and_gone_leaves_no_garbage(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else Python would have to look through all objects now and then: a tenth of a second for a thousand clients."""
    # What waits to be logged keeps a link for as long: what is then left of the link would not be seen.
    monkeypatch.setattr(comings, "SETTLED", 0)
    for way in WAYS:
        # What is made once stays.
        site.visits(way)
        assert not left(partial(site.visits, way)), way


@pytest.mark.parametrize(
    ("rules", "padding", "agreed"),
    [
        (None, True, True),
        (None, False, False),
        ("", True, True),
        ('rate-up = "1 Gbit/s"', True, False),
        ('rate-down = "10 Mbit/s"', True, False),
    ],
)
def test_a_client_with_a_rate_gets_no_padding(
    host: Host, tmp_path: Path, rules: str | None, padding: bool, agreed: bool
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(f"[default]\n{rules}\n")
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        site = Site(host, None, None if rules is None else str(policy), padding=padding)
        assert site.agrees() == [agreed]
        site.close()


@pytest.mark.parametrize("site", ["ws"], indirect=True)
def test_a_storm_of_clients_gets_no_padding(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    grants = Grants(Rate(2, 1e9), Rate(3, 1e9))
    monkeypatch.setattr(site.application._tunnels, "_padding", grants)
    # All have one address, and no name.
    assert site.agrees(3) == [True, True, False]
    assert grants.take("another client")
    assert not grants.take("a third one")


@pytest.mark.parametrize("site", ["ws"], indirect=True)
def test_a_frame_that_comes_right_after_the_101_is_not_lost(
    site: Site, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade, sent = Handler._upgrade, frame(100, to=b"\xff" * 6)

    def upgraded(handler: Handler, headers: Headers) -> object:
        answer = upgrade(handler, headers)
        # The client has its 101 by now, and others may know of it.
        host.frames("ethws0").send(sent)
        return answer

    monkeypatch.setattr(Handler, "_upgrade", upgraded)
    site.hears(sent)


@pytest.mark.parametrize("site", ["policy"], indirect=True)
@pytest.mark.parametrize(("handing_over", "code"), [(False, 1001), (True, 1012)])
def test_a_client_that_joins_while_the_server_stops_is_told_so(
    site: Site, monkeypatch: pytest.MonkeyPatch, handing_over: bool, code: int
) -> None:
    take, ends, waits = Ports.take, list[object](), list[bool]()
    tunnels = site.application._tunnels

    def slow(ports: Ports, *wanted: object) -> object:
        # Where many come at once, it waits for its turn.
        waits.append(True)
        while not tunnels._stopping:
            gevent.sleep(0.001)
        return take(ports, *wanted)  # type: ignore[arg-type]

    def come() -> None:
        peer = site.peer()
        peer.say(request())
        peer.head()
        while (found := peer.frame())[0] != 0x88:
            pass
        ends.append(found)
        peer.close()

    # It does not answer its Close: the server waits for it.
    first = gevent.get_hub().threadpool.apply(lambda: site.peer().upgraded())
    monkeypatch.setattr(Ports, "take", slow)
    late = gevent.get_hub().threadpool.spawn(come)
    while not waits:
        gevent.sleep(0.001)
    site.application.stop(handing_over=handing_over)
    late.get()
    assert ends == [(0x88, code.to_bytes(2, "big"))]
    first.close()
