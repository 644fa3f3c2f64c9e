"""A bridge whose own frames come back to it by one of its ports: real frames, on real interfaces."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import gevent
import pytest

from etherws.kernel import packet_sockets
from etherws.kernel.loops import MOVES, QUIET
from etherws.kernel.own_frames import OwnFrames
from tests.lab.hosts import PATIENCE, Host
from tests.lab.lan import address, from_, index_of

Noticed = list[tuple[int, int | None]]


@pytest.fixture
def noticed(lan: Host) -> Noticed:
    return []


@pytest.fixture
def own(lan: Host, noticed: Noticed) -> Iterator[OwnFrames]:
    """It watches br0."""
    with lan.namespace.inside(), gevent.Timeout(PATIENCE):
        made = OwnFrames(index_of(lan, "br0"), address(lan), lambda *found: noticed.append(found))
        yield made
        made.close()


def settle(host: Host, name: str, frame: bytes, noticed: Noticed) -> None:
    """Send the frame to the far end of a port's cable, until it is noticed."""
    far = host.frames(name)
    while not noticed:
        far.send(frame)
        gevent.sleep(0.01)


def test_own_frames_that_come_back_are_noticed_with_the_port(lan: Host, own: OwnFrames, noticed: Noticed) -> None:
    settle(lan, "far-other", from_(address(lan)), noticed)
    assert noticed == [(index_of(lan, "br0"), index_of(lan, "other"))]
    assert own.last is not None
    assert not own.has_ended(own.last + QUIET)
    assert own.has_ended(own.last + QUIET + 1)
    assert not own.has_ended(1e9)


def test_what_the_bridge_sends_and_what_others_send_is_not_noticed(lan: Host, own: OwnFrames, noticed: Noticed) -> None:
    sender, far = lan.frames("br0"), lan.frames("far-port")
    for _ in range(3 * MOVES):
        sender.send(from_(address(lan)))
        far.send(from_("02:ee:00:00:00:01"))
    for _ in range(MOVES - 1):
        far.send(from_(address(lan)))
    gevent.sleep(0.05)
    assert noticed == []
    far.send(from_(address(lan)))
    settle(lan, "far-port", from_(address(lan)), noticed)


def test_the_address_can_change(lan: Host, own: OwnFrames, noticed: Noticed) -> None:
    own.set_address("02:ee:00:00:00:09")
    settle(lan, "far-port", from_("02:ee:00:00:00:09"), noticed)


def test_a_port_that_is_not_found_is_none(lan: Host, own: OwnFrames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etherws.kernel.own_frames.SEARCH", 0.01)
    assert own._search() is None


def test_a_bridge_that_is_gone_is_an_error_and_no_end(
    lan: Host, own: OwnFrames, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "etherws")
    lan.delete_link("br0")
    while "is not seen: Network is down" not in caplog.text:
        gevent.sleep(0.01)
    with pytest.raises(OSError, match="No such device"):
        OwnFrames(99_999, "02:ee:00:00:00:09", lambda *_: None)


def test_the_socket_is_given_back_though_who_closes_is_ended(
    lan: Host, own: OwnFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[socket.socket] = []

    def ended() -> None:
        raise gevent.GreenletExit

    with monkeypatch.context() as patch:
        patch.setattr(packet_sockets, "give_back", given_back.append)
        # To wait for the greenlet that watches is where it can be ended.
        patch.setattr(own._greenlet, "kill", ended)
        with pytest.raises(gevent.GreenletExit):
            own.close()
    assert given_back == [own._socket]
