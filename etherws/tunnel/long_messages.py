"""How much memory the long messages of all connections may hold together.

A connection has a buffer of its own for messages of the usual length. What a longer one needs beyond that is counted
here, from its first bytes until its packets are delivered. If there is too much, the source that has the most loses the
connection that has had it longest. receiver.py asks; frames.py has the buffer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import gevent

from etherws.close_codes import CloseCode
from etherws.errors import ProtocolError

#: Bytes for the long messages of all connections together: 32 of the longest. etherws itself sends no message that is
#: longer than usual.
LONG_MESSAGES_BYTES = 32 * 1024 * 1024


@dataclass
class _Part:
    source: str
    size: int
    refuse: Callable[[ProtocolError], object]


class LongMessages:
    """The memory that is in use. `holder` is any object that stands for a connection."""

    def __init__(self, limit: int = LONG_MESSAGES_BYTES) -> None:
        self._limit = limit
        # In the order in which they began.
        self._parts: dict[object, _Part] = {}

    def hold(
        self, holder: object, source: str, size: int, refuse: Callable[[ProtocolError], object] | None = None
    ) -> None:
        """A connection needs `size` bytes now, 0 to give all back. Raises ProtocolError if there is no room for it; or
        has another connection make room. That one's `refuse` is called, or ProtocolError is raised in the greenlet that
        called this for it."""
        if not size:
            self._parts.pop(holder, None)
            return
        refuse = refuse or partial(gevent.kill, gevent.getcurrent())
        part = self._parts.setdefault(holder, _Part(source, size, refuse))
        part.size, part.refuse = size, refuse
        while sum(part.size for part in self._parts.values()) > self._limit:
            used: Counter[str] = Counter()
            for part in self._parts.values():
                used[part.source] += part.size
            most = max(used.values())
            last = next(each for each, part in self._parts.items() if used[part.source] == most)
            refuse_last = self._parts.pop(last).refuse
            exc = ProtocolError(CloseCode.TOO_BIG, "too many long messages are not finished")
            if last is holder:
                raise exc
            refuse_last(exc)


#: Those of this process.
long_messages = LongMessages()
