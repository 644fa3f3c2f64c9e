"""Notifications of interfaces, by the thousand: how many are read in one turn, and who is told of how many at once."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
from gevent import socket

from etherws.kernel import link_changes, link_watch
from etherws.kernel.link_changes import Touched
from etherws.kernel.link_watch import INTERFACES, LinkWatch
from etherws.walks import TURN_SECONDS, in_turns

#: What it takes to read one message, and how many are read in a turn.
COST = TURN_SECONDS / 8
IN_A_TURN = 8


class End(Exception):
    """Nothing more comes."""


class Kernel:
    """A socket with messages: each is the index of an interface, or the number of an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, messages: list[int | OSError]) -> None:
        self.messages, self.now = deque(messages), 0.0
        #: How many were read before each pause, and what was told.
        self.read = 0
        self.pauses: list[int] = []
        self.told: list[Mapping[int, Touched] | None] = []
        me: Any = self
        monkeypatch.setattr(socket, "wait_read", self.wait)
        monkeypatch.setattr(link_changes, "touched", lambda data: {data: Touched.NAME})
        walk = partial(in_turns, clock=lambda: self.now, wait=lambda: self.pauses.append(self.read))
        monkeypatch.setattr(link_watch, "in_turns", walk)
        watch = LinkWatch()
        watch.listen(self.told.append)
        with pytest.raises(End):
            watch._read(me)

    def fileno(self) -> int:
        """As a socket's."""
        return 0

    def wait(self, _: int) -> None:
        """As socket.wait_read()."""
        if not self.messages:
            raise End

    def recv(self, _: int) -> int:
        """As a socket's that does not wait."""
        if not self.messages:
            raise BlockingIOError
        found = self.messages.popleft()
        if isinstance(found, OSError):
            raise found
        self.now += COST
        self.read += 1
        return found


def test_a_flood_is_read_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    # Five messages about each of a few interfaces.
    kernel = Kernel(monkeypatch, [number % 10 for number in range(100)])
    assert max(after - before for before, after in zip(kernel.pauses, kernel.pauses[1:], strict=False)) <= IN_A_TURN
    assert len(kernel.pauses) >= 100 // IN_A_TURN
    # What they are about is asked once.
    assert kernel.told == [dict.fromkeys(range(10), Touched.NAME)]


def test_nobody_waits_for_the_end_of_a_flood_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, list(range(1000)))
    assert {len(told) for told in kernel.told if told is not None} == {INTERFACES, 1000 % INTERFACES}
    assert [index for told in kernel.told if told is not None for index in told] == list(range(1000))


def test_what_the_kernel_has_dropped_may_be_about_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, [1, 2, OSError(errno.ENOBUFS, "full"), 3])
    assert kernel.told == [None, {3: Touched.NAME}]


def test_any_other_error_ends_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="broken"):
        Kernel(monkeypatch, [1, OSError(errno.EIO, "broken")])
