"""One direction of a session: a greenlet with its buffers while frames come, and a watcher while none do.

A greenlet takes 8 to 12 KB of memory, and the buffers as much as was used of them. So a direction that was quiet for a
second ends its greenlet and gives the buffers back to the kernel, and the event loop begins a new one with what comes
next. What has come of half a message is kept. No frame passes here. Read next: session.py; tap.py, receiver.py, whose
waits end here; timers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import gevent

from etherws.errors import EtherwsError
from etherws.tunnel.timers import Alarm

#: Seconds without a frame after which a direction rests. To begin again takes 0.05 ms of processor time.
QUIET = 1.0


class Source(Protocol):
    """Where the frames of a direction come from: the TAP, or the connection."""

    def quiet(self, seconds: float) -> bool:
        """Whether the greenlet waits for frames, and nothing has come for so long."""

    def on_readable(self, call: Callable[[], object] | None) -> None:
        """No greenlet waits: let the event loop call `call` each time when there is something; or, with None, no
        longer."""


class Direction:
    """From its making to stop(): it begins awake."""

    __slots__ = ("_alarm", "_end", "_greenlet", "_left", "_source", "_work")

    def __init__(self, work: Callable[[], object], source: Source, end: Callable[[EtherwsError], None]) -> None:
        """`work` carries what `source` has, without end; it can be ended while it waits there, and begun again. `end`
        is told the error by which it ends itself."""
        self._work, self._source, self._end = work, source, end
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._left = False
        self._alarm = Alarm(self._look)
        self._wake()

    def leave(self) -> None:
        """Another session has the source from now on: neither rest nor begin again."""
        self._left = True
        self._alarm.cancel()

    def stop(self) -> list[gevent.Greenlet[..., None]]:
        """For good. Return the greenlet, which is to be killed, if there is one."""
        if not self._left:
            self.leave()
            self._source.on_readable(None)
        return [self._greenlet] if self._greenlet else []

    def _wake(self) -> None:
        """Begin to work; called by the event loop."""
        if self._greenlet is None:
            self._source.on_readable(None)
            self._greenlet = gevent.spawn(until_error, self._work, self._end)
            self._alarm.set(QUIET)

    def _look(self) -> None:
        """Rest, if it is quiet; called by the event loop."""
        if self._greenlet is None or not self._source.quiet(QUIET):
            self._alarm.set(QUIET)
            return
        # In this moment it waits for its source.
        self._greenlet.throw(gevent.GreenletExit)
        self._greenlet = None
        self._source.on_readable(self._wake)


def until_error(work: Callable[[], object], end: Callable[[EtherwsError], None]) -> None:
    """Do the work of a greenlet of a session; tell `end` the error by which it ended. One that nobody thought of is
    raised as well."""
    try:
        work()
    except EtherwsError as exc:
        end(exc)
    except Exception as exc:
        end(EtherwsError(f"unexpected {type(exc).__name__}: {exc}"))
        raise
