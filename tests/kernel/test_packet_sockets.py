"""The supply of packet sockets, on real interfaces."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from etherws.kernel import packet_sockets
from etherws.kernel.packet_sockets import ETH_P_ALL
from tests.lab.hosts import PATIENCE, Frames, Host, until

FRAME = b"\xff" * 6 + b"\x02\xee\0\0\0\1" + b"\x88\xb5".ljust(48, b"\0")


@pytest.fixture
def supply(lan: Host) -> Iterator[Host]:
    """Two of them, in the supply."""
    with lan.namespace.inside():
        packet_sockets.reserve(2)
        yield lan
        packet_sockets.close()


def waiting(sock: socket.socket) -> int:
    """The frames that wait in a socket."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while sock.recv(14):
            count += 1
    return count


def sent(sender: Frames, sock: socket.socket) -> int:
    """Send a frame; return how many the socket has got."""
    sender.send(FRAME)
    return waiting(sock)


def test_without_a_supply_each_is_made_and_closed(lan: Host) -> None:
    with lan.namespace.inside():
        sock = packet_sockets.take()
    packet_sockets.give_back(sock)
    assert sock.fileno() == -1
    assert packet_sockets.descriptors() == []


def test_one_that_comes_back_is_taken_again_and_has_no_old_frames(supply: Host) -> None:
    numbers = set(packet_sockets.descriptors())
    sock = packet_sockets.take()
    sock.bind(("port", ETH_P_ALL))
    sender = supply.frames("far-port")
    until(lambda: sent(sender, sock), "a frame")
    for _ in range(5):
        sender.send(FRAME)
    packet_sockets.give_back(sock)
    assert sorted(packet_sockets.descriptors()) == sorted(numbers)
    both = [packet_sockets.take(), packet_sockets.take()]
    assert {one.fileno() for one in both} == numbers
    sender.send(FRAME)
    assert [waiting(one) for one in both] == [0, 0]
    for one in both:
        packet_sockets.give_back(one)


def test_one_whose_interface_is_gone_can_be_used_again(supply: Host) -> None:
    sock, other = packet_sockets.take(), packet_sockets.take()
    with supply.netlink() as route:
        route.link("add", ifname="gone", kind="bridge", state="up")
        sock.bind(("gone", ETH_P_ALL))
        route.link("del", ifname="gone")
    packet_sockets.give_back(sock)
    sock = packet_sockets.take()
    packet_sockets.listen_everywhere(sock)
    sender = supply.frames("far-port")
    until(lambda: sent(sender, sock), "a frame")
    packet_sockets.give_back(sock)
    packet_sockets.give_back(other)


def test_others_of_another_program_are_taken_over(supply: Host) -> None:
    there = packet_sockets.descriptors()
    copies = [os.dup(number) for number in there]
    packet_sockets.close()
    packet_sockets.adopt(copies)
    sock = packet_sockets.take()
    assert sock.fileno() in copies
    assert sock.family == socket.AF_PACKET
    packet_sockets.give_back(sock)


def test_the_supply_leaves_descriptors_to_clients(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with lan.namespace.inside(), contextlib.closing(packet_sockets):
        packet_sockets.reserve(packet_sockets.SERVER_NEEDS)
        assert len(packet_sockets.descriptors()) == 8


def test_they_are_closed_together(supply: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel takes some milliseconds for each, and for all together no more.
    numbers, close, both = packet_sockets.descriptors(), os.close, threading.Barrier(2)

    def close_with_the_other(descriptor: int) -> None:
        both.wait(PATIENCE)
        close(descriptor)

    monkeypatch.setattr(os, "close", close_with_the_other)
    packet_sockets.close()
    monkeypatch.undo()
    for number in numbers:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
