"""In which bridge one interface of ours belongs, and what is to be done when it is not there.

Others change bridges: a restart of the network deletes them and makes them again, a reload takes ports out, and people
move interfaces. Pure: look() is given what the kernel says now, and returns what follows. Read next: bridges.py, which
asks the kernel, joins and logs.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

#: Seconds from the moment at which an interface leaves a bridge until that is judged. ifupdown takes ports out just
#: before it deletes the bridge, and ifupdown2 sets each port down right after it has taken it out: within milliseconds.
#: Less than the second in which guard.py gives up on a port that must be isolated.
SETTLE = 0.5

#: Reloads of ifupdown2 that are undone within so many seconds; one more looks like somebody who wants it out.
RELOADS, RELOADS_WITHIN = 5, 60.0


#: The index and the name of a bridge; None for none.
Was = tuple[int, str] | None


class State(Enum):
    """Where the interface is, and why."""

    #: In no bridge, and nobody has said that it belongs in one.
    ALONE = "alone"
    #: In the bridge in which it belongs.
    IN = "in"
    #: It has left its bridge a moment ago, and it is not clear yet why.
    LEFT = "left"
    #: Somebody has taken it out of its bridge.
    OUT = "out"
    #: Its bridge is gone. It joins when there is one of that name again.
    AWAY = "away"


class Verdict(Enum):
    """What follows from a look at the interface."""

    #: Nothing is to be done or said.
    NOTHING = "nothing"
    #: It is in another bridge now: somebody has moved it.
    MOVED = "moved"
    #: Its bridge is gone.
    DELETED = "deleted"
    #: Its bridge is there again: it is to join.
    JOIN = "join"
    #: Somebody has taken it out.
    TAKEN_OUT = "taken out"
    #: A reload of ifupdown2 has taken it out: it is to join.
    RELOADED = "reloaded"
    #: The same too often.
    RELOADED_AGAIN = "reloaded again"


class Seen(NamedTuple):
    """What the kernel says now."""

    up: bool
    #: The index and the name of the bridge or bond that the interface is in; 0 and "" if it is in none.
    master: int
    master_name: str
    #: Whether the bridge in which it belongs still exists.
    bridge_exists: bool
    #: The index of the bridge that has the name of that one now; 0 if there is none.
    namesake: int


@dataclass
class Membership:
    """One interface's."""

    #: The bridge that the user has named for it; None if the one who puts it into a bridge decides.
    wanted: str | None
    #: The index of the bridge in which it belongs, 0 if there was none yet; and its name.
    bridge: int = 0
    name: str = ""
    state: State = State.ALONE
    #: Whether somebody has moved it out of the bridge that the user has named.
    moved: bool = False
    #: When it left its bridge.
    left: float = 0.0
    #: Since when it is down in its bridge; None if it is up.
    down_since: float | None = None
    #: Whether it is down because somebody wants that: it was down before it left its bridge.
    stays_down: bool = False
    _reloads: deque[float] = field(default_factory=lambda: deque(maxlen=RELOADS))

    def __post_init__(self) -> None:
        self.name = self.wanted or ""

    @property
    def due(self) -> float | None:
        """When it is to be looked at even if nothing changes; None if there is no such time."""
        return self.left + SETTLE if self.state is State.LEFT else None

    def look(self, seen: Seen, now: float) -> Verdict:
        """The interface may have changed, or its bridge, or the time is due. `now` is in seconds."""
        if seen.master:
            return self._is_in(seen, now)
        if self.state is State.IN:
            self.state, self.left = State.LEFT, now
            self.stays_down = self.down_since is not None and now - self.down_since > SETTLE
        if self.state is State.ALONE:
            return Verdict.NOTHING
        if self.state is State.AWAY:
            return Verdict.JOIN if seen.namesake else Verdict.NOTHING
        if not seen.bridge_exists and (self.state is State.LEFT or self.wanted):
            self.state = State.AWAY
            return Verdict.DELETED
        if self.due is not None and now >= self.due:
            return self._judge(seen, now)
        return Verdict.NOTHING

    def was_in(self, bridge: Was) -> None:
        """Where another process has had it when it ended, if there was one and nothing is known yet."""
        if bridge and self.state is State.ALONE:
            self.bridge, self.name = bridge
            self.state, self.moved = State.IN, bool(self.wanted) and self.name != self.wanted

    def joined(self, bridge: int) -> None:
        """It has joined the bridge of this index, as look() has said."""
        self.bridge, self.state, self.down_since = bridge, State.IN, None

    def _is_in(self, seen: Seen, now: float) -> Verdict:
        moved = seen.master != self.bridge and seen.master_name != self.name and self.state is not State.ALONE
        if moved or not self.wanted:
            self.name = seen.master_name
        self.moved = bool(self.wanted) and (self.moved or moved) and self.name != self.wanted
        self.bridge, self.state = seen.master, State.IN
        if seen.up:
            self.down_since = None
        elif self.down_since is None:
            self.down_since = now
        return Verdict.MOVED if moved else Verdict.NOTHING

    def _judge(self, seen: Seen, now: float) -> Verdict:
        """Who takes an interface out of a bridge by hand leaves it up. ifupdown2 sets it down."""
        self.state = State.OUT
        if not self.wanted or self.moved or seen.up or self.stays_down:
            return Verdict.TAKEN_OUT
        if len(self._reloads) == RELOADS and now - self._reloads[0] < RELOADS_WITHIN:
            return Verdict.RELOADED_AGAIN
        self._reloads.append(now)
        return Verdict.RELOADED
