"""What the log says of the members of a link: which was lost, why one cannot be connected, and that it is back.

The first connection, and the end of the last one, are those of the link: reconnect.py logs them. Read next: members.py,
the caller; failures.py, which says what is worth a line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from etherws.client.failures import Failures
from etherws.errors import ConnectError
from etherws.log_limit import LogLimit

log = logging.getLogger(__name__)


class MemberLog:
    """The members of one link to `server`, of which there are to be `count`."""

    def __init__(self, server: str, count: int, there: Callable[[], int]) -> None:
        """`there` returns how many there are now."""
        self._server, self._count, self._there = server, count, there
        #: Why members are missing, or cannot be replaced, in words; empty if all is well.
        self.trouble = ""
        self._failures, self._limit = Failures(), LogLimit(log)
        # The members whose loss was logged; and whether all were there before.
        self._missed, self._complete = set[int](), count == 1

    def unexpected(self, error: Exception) -> str:
        """Log an error that nobody thought of; return it as a text."""
        return self._limit.unexpected(error)

    def lost(self, number: int, why: str, *, back: bool) -> None:
        """This member has ended a moment ago, and others go on; or it is `back` already."""
        if back:
            text = "lost connection %d to %s: %s; it is there again"
            self._limit.log(logging.INFO, "lost", text, number, self._server, why)
            return
        self._missed.add(number)
        text = "lost connection %d to %s: %s; %d of %d are there, trying again"
        self._limit.log(logging.INFO, "lost", text, number, self._server, why, self._there(), self._count)

    def failed(self, number: int, error: ConnectError) -> None:
        """This member could not be connected; if it was to be replaced, the old connection is still there."""
        there = f"{self._there()} of {self._count} are there"
        self.trouble = f"{self._server}: {there}; no further connection: {error}"
        log.debug("cannot connect to %s by connection %d: %s", self._server, number, error)
        if line := self._failures.line(f"{self._server} by a further connection", error):
            self._limit.log(logging.WARNING, "failed", "%s; %s, trying again", line, there)

    def joined(self, number: int) -> None:
        """This member has joined, or was replaced."""
        log.debug("connection %d to %s is there", number, self._server)
        if number in self._missed:
            self._missed.remove(number)
            self._limit.log(logging.INFO, "back", "connection %d to %s is there again", number, self._server)
        if self._there() < self._count:
            return
        self.trouble = ""
        self._failures.begin()
        if not self._complete:
            self._complete = True
            log.info("connected to %s by %d connections", self._server, self._count)
