"""Filters on sockets, as the kernel runs them. tests/kernel/test_own_frames.py has those of frames."""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest

from etherws.kernel import socket_filter


def message(kind: int, family: int) -> bytes:
    return struct.pack("=IHHII", 28, kind, 0, 0, 0) + bytes((family,)) + bytes(11)


def kept(sent: list[bytes], program: list[socket_filter.Instruction]) -> list[bytes]:
    """What of this comes through the filter."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        other.setblocking(False)
        socket_filter.attach(other, program)
        got = []
        for data in sent:
            one.send(data)
            with contextlib.suppress(BlockingIOError):
                got.append(other.recv(100))
    return got


def test_messages_of_two_kinds_and_one_family_are_kept() -> None:
    wanted = [message(28, 7), message(29, 7)]
    others = [message(28, 2), message(29, 10), message(30, 7), message(7, 28), b"short", message(28 << 8, 7)]
    assert kept([*others, *wanted, *others], socket_filter.netlink_messages((28, 29), 7)) == wanted


def test_one_filter_replaces_the_other() -> None:
    nothing = [(socket_filter.RETURN, 0, 0, socket_filter.NOTHING)]
    assert kept([b"a"], nothing) == []
    assert kept([b"a"], [(socket_filter.RETURN, 0, 0, socket_filter.WHOLE)]) == [b"a"]


def test_a_program_that_the_kernel_does_not_take_is_an_error() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        kept([], [(socket_filter.JUMP_IF_EQUAL, 9, 9, 0)])
