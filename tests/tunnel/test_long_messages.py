"""Whose long message is refused when there are too many."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from etherws.errors import ProtocolError
from etherws.tunnel.long_messages import LongMessages
from tests.lab.hosts import PATIENCE


class Connections:
    """Greenlets that need memory and then wait."""

    def __init__(self, limit: int) -> None:
        self.room = LongMessages(limit)
        self.greenlets: dict[str, gevent.Greenlet[..., None]] = {}

    def hold(self, name: str, source: str, *sizes: int) -> None:
        """A connection that needs these sizes, one after the other."""

        def work() -> None:
            for size in sizes:
                self.room.hold(name, source, size)
            Event().wait()

        self.greenlets[name] = gevent.spawn(work)
        gevent.sleep(0)
        gevent.sleep(0)

    def refused(self) -> list[str]:
        """Those that were refused."""
        return [name for name, greenlet in self.greenlets.items() if isinstance(greenlet.exception, ProtocolError)]


def test_the_oldest_of_the_source_that_has_most_is_refused() -> None:
    connections = Connections(10)
    connections.hold("honest", "one", 4)
    connections.hold("first", "many", 3)
    connections.hold("second", "many", 3)
    assert connections.refused() == []
    connections.hold("third", "many", 3)
    assert connections.refused() == ["first"]
    exc = connections.greenlets["first"].exception
    assert isinstance(exc, ProtocolError)
    assert exc.code == 1009
    connections.hold("fourth", "another", 1)
    assert connections.refused() == ["first", "second"]


def test_who_needs_most_himself_is_refused() -> None:
    room = LongMessages(10)
    room.hold("one", "a", 6)
    with pytest.raises(ProtocolError):
        room.hold("one", "a", 11)
    # Nothing is left of it.
    room.hold("two", "b", 10)


def test_what_is_given_back_is_free_for_others() -> None:
    connections = Connections(10)
    connections.hold("one", "a", 2, 6, 10, 0)
    connections.hold("two", "b", 9)
    connections.room.hold("unknown", "c", 0)
    gevent.joinall(list(connections.greenlets.values()), timeout=0)
    assert connections.refused() == []
    gevent.killall(list(connections.greenlets.values()), timeout=PATIENCE)
