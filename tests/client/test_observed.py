"""A client as observe/ sees it: before, in and after a connection, and what it is told to do."""

from __future__ import annotations

import os
import signal
from collections import Counter
from unittest.mock import Mock

import gevent
import pytest

from etherws import __version__
from etherws.client import observed
from etherws.client.attempt import RemoteServer
from etherws.client.link_counts import LinkCounts
from etherws.client.observed import ObservedClient
from etherws.client.reconnect import Client
from etherws.errors import DeviceError, NoSuchClient
from etherws.kernel.bridge_tables import Behind, BridgeTables
from etherws.observe.subject import Subject
from etherws.settings import ClientSettings, Retry
from tests.lab.hosts import Host


class Far(RemoteServer):
    """A server that nobody connects to."""

    target = resume = ""
    proxy = "http://proxy:3128"
    address = "192.0.2.1"

    def __init__(self) -> None:
        self.name = "wss://host:443"


def connected() -> Client:
    """A client with a session, by mocks."""
    client = Client([Far()], ClientSettings(), Retry())
    client.link.attempt()
    client.link.trying("wss://host:443", "http://proxy:3128")
    client.link.connected()
    client.local = Mock(tap=Mock(index=7, locate=lambda: 7), drops=lambda: Counter({"dhcp-server": 2}))
    client.local.loops.going_on = list
    client.local.tap.name = "ethws3"
    session = Mock(
        status=lambda: {
            "wire": 2,
            "drops": {"queue late": 1, "dhcp-server": 1},
            "members": 1,
            "connections": [],
        },
        history=lambda: {"step": 5.0},
    )
    counts = LinkCounts({0: session}, [], client.local.drops, alone=True)
    client.members = Mock(counts=counts, log=Mock(trouble=""))
    return client


def test_a_client_before_its_first_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/etherws/client-lan")
    subject: Subject = ObservedClient(Client([Far()], ClientSettings(), Retry()))
    found = subject.overview()
    assert (found["schema"], found["role"], found["name"], found["version"]) == (1, "client", "lan", __version__)
    assert (found["state"], found["device"], found["bridge"], found["pid"]) == ("connecting", "", None, os.getpid())
    assert found["link"]["server"] == "wss://host:443"
    assert 0 < found["started"] <= found["now"]
    assert not list(subject.sessions())
    assert not list(subject.parked())
    assert subject.not_ready() == "not connected to wss://host:443 yet"


def test_a_client_that_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    behind = Behind("br0", ["02:00:00:00:00:01"], 3)
    monkeypatch.setattr(BridgeTables, "look", lambda _: {7: behind})
    client = connected()
    subject: Subject = ObservedClient(client)
    found = subject.overview()
    assert (found["state"], found["device"], found["bridge"], found["name"]) == ("connected", "ethws3", "br0", "ethws3")
    assert subject.not_ready() == ""
    (session,) = subject.sessions()
    assert session == {
        "wire": 2,
        "drops": {"queue late": 1, "dhcp-server": 3},
        "members": 1,
        "connections": [],
        "server": "wss://host:443",
        "address": "192.0.2.1",
        "proxy": "http://proxy:3128",
        "device": "ethws3",
        "index": 7,
        "bridge": "br0",
        "worker": None,
        "reconnects": 0,
        "macs": ["02:00:00:00:00:01"],
        "macs_more": 3,
        "policy": None,
    }
    assert subject.history(7) == {"step": 5.0}
    with pytest.raises(NoSuchClient, match="with the index 8"):
        subject.history(8)
    # The session ends, and the loop has not gone on yet.
    client.members = None
    assert subject.overview()["state"] == "connecting"
    assert not list(subject.sessions())
    with pytest.raises(NoSuchClient):
        subject.history(7)


def test_missing_connections_are_a_warning() -> None:
    client = connected()
    assert client.members is not None
    client.members.log.trouble = "ws://a: 1 of 4 are there"
    client.local = None
    assert ObservedClient(client).overview()["warnings"] == ["ws://a: 1 of 4 are there"]


def test_what_is_wrong_with_the_lan_is_a_warning(host: Host) -> None:
    client = connected()
    client.link.warnings = ["the MTUs differ"]
    with host.netlink() as route:
        route.link("add", ifname="ethws3", kind="veth", peer={"ifname": "far"})
    host.bridge("br0", "ethws3")
    assert client.local is not None
    client.local.tap.locate = lambda: host.links()["ethws3"]["index"]  # type: ignore[method-assign]
    client.local.loops.going_on = lambda: ["frames go in a loop"]  # type: ignore[method-assign]
    with host.namespace.inside():
        usual = ["the MTUs differ", "frames go in a loop"]
        subject = ObservedClient(client)
        assert subject.overview()["warnings"] == [*usual, "ethws3 is down: ip link set ethws3 up"]
        host.set_link("ethws3", state="up")
        assert subject.overview()["warnings"] == usual
        host.set_link("br0", state="down")
        down = "br0 is down, so nothing passes between its ports: ip link set br0 up"
        assert subject.overview()["warnings"] == [*usual, down]
        client.local.tap.locate = Mock(side_effect=DeviceError)  # type: ignore[method-assign]
        assert subject.overview()["warnings"] == usual


def test_an_interface_that_is_elsewhere_is_shown_without_its_name() -> None:
    client = connected()
    assert client.local is not None
    for locate in (Mock(return_value=None), Mock(side_effect=DeviceError)):
        client.local.tap.locate = locate  # type: ignore[method-assign]
        (session,) = ObservedClient(client).sessions()
        assert (session["device"], session["index"], session["bridge"], session["macs"]) == ("", 7, None, [])


def test_what_a_client_is_told_it_does_by_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    kill = Mock()
    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(observed, "STOP_DELAY", 0.0)
    subject = ObservedClient(connected())
    subject.reload()
    kill.assert_called_once_with(os.getpid(), signal.SIGHUP)
    subject.stop()
    # Whoever asked gets an answer first.
    assert kill.call_count == 1
    gevent.sleep(0.001)
    kill.assert_called_with(os.getpid(), signal.SIGINT)
    for tell in (lambda: subject.kick("anybody", 0.0, "it"), lambda: subject.drain(60.0, "it")):
        with pytest.raises(NoSuchClient, match="this is a client"):
            tell()
