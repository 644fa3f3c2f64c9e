"""The connections between accept() and their tunnel: how many there may be, and which one must go for another.

A connection is *silent* while we wait for it. While it waits for us, it is not: nobody who speaks is hung up on. Pure:
knows no socket and no event loop. Read next: visitor.py, which says when a connection is silent, and accepting.py,
which asks for room.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

#: Connections that wait at once: twice as many as come when a site of a thousand clients has its power back. Each takes
#: 20 KB, and 65 KB in TLS (measured; 320 KB if it has sent much at once). So silent ones take 130 MB, 650 MB at worst.
MAX_WAITING = 2048

#: Seconds for which a connection may be silent before it can be hung up on. An honest client that speaks at once is
#: silent for one round trip; the slowest paths have less than this.
GRACE = 1.0


class Place:
    """One connection's place in the list."""

    def __init__(self, waiting: WaitingList, source: str, hang_up: Callable[[], None]) -> None:
        self._list = waiting
        self.source = source
        self.hang_up = hang_up
        #: Since when we wait for it, less the time for which we waited for it before in this step. None: it waits for
        #: us.
        self.since: float | None = None
        self._before = 0.0

    @property
    def silent_for(self) -> float:
        """Seconds for which we have waited for it, in this step."""
        return self._before if self.since is None else self._list.clock() - self.since

    def begin_step(self) -> None:
        """A new step begins: it has done all that we waited for."""
        self._before = 0.0

    def listen(self) -> None:
        """From now on we wait for it. What was silent before in this step counts: one byte of many is no answer."""
        self.since = self._list.clock() - self._before

    def heard(self) -> None:
        """From now on it waits for us."""
        self._before, self.since = self.silent_for, None

    def leave(self) -> None:
        """It has become a tunnel, or is closed. May be repeated."""
        self._list.remove(self)
        # It is a method of who has this place: neither would go without a search for garbage.
        self.hang_up = _is_gone


def _is_gone() -> None:
    """Nobody hangs up on a connection that has left."""


class WaitingList:
    """All of one server."""

    def __init__(self, limit: int = MAX_WAITING, clock: Callable[[], float] = monotonic) -> None:
        """`limit` is how many may wait at once. `clock` gives seconds."""
        self.limit = limit
        self.clock = clock
        #: In the order of their coming.
        self._places: dict[Place, None] = {}
        #: Called when a place becomes free.
        self.on_room: Callable[[], None] = lambda: None

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self._places)

    def enter(self, source: str, hang_up: Callable[[], None]) -> Place:
        """A place for a connection of `source`, for which there is room. `hang_up` ends the connection, and must lead
        to leave()."""
        place = Place(self, source, hang_up)
        self._places[place] = None
        return place

    def remove(self, place: Place) -> None:
        """See Place.leave()."""
        if place in self._places:
            del self._places[place]
            self.on_room()

    def make_room(self, count: int) -> tuple[int, float]:
        """Have room for `count` more connections if that is possible.

        Return for how many there is room, and, if for none, after how many seconds it is worth trying again; a place
        that becomes free meanwhile is told by `on_room`. Hangs up on silent connections: on the one that has been
        silent for longest, of the source that has the most silent ones. But not before GRACE.
        """
        room = self.limit - len(self._places)
        if room >= count:
            return room, 0.0
        return self.hang_up_on(count - room, max(room, 0))

    def hang_up_on(self, count: int, room: int = 0) -> tuple[int, float]:
        """Hang up on up to `count` silent connections, as make_room() does; there is room for `room` without that."""
        now = self.clock()
        silent: dict[str, list[tuple[float, Place]]] = {}
        for place in self._places:
            if place.since is not None:
                silent.setdefault(place.source, []).append((place.since, place))
        for places in silent.values():
            # The longest silent one last; of those that came together, the first.
            places.sort(key=lambda each: each[0])
            places.reverse()
        for _ in range(count):
            # The source with the most; of several such sources, the one with the longest silent connection.
            source = max(silent, key=lambda source: (len(silent[source]), -silent[source][-1][0]), default=None)
            if source is None:
                return room, GRACE
            since, place = silent[source].pop()
            if now - since < GRACE:
                return room, GRACE - (now - since)
            if not silent[source]:
                del silent[source]
            self.remove(place)
            place.hang_up()
            room += 1
        return room, 0.0
