"""Which failures to connect are worth a line of the log: the first reason, and each new one, for each server.

Pure: it returns the lines, and reconnect.py logs them. An attempt comes every 30 s for as long as a server is away, so
a line for each would fill the log. Two errors have the same reason if their `kind` is the same (errors.py:
ConnectError).
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from etherws.errors import ConnectError

#: Seconds after which a reason that comes again counts as new: who reads the log sees what holds now.
FORGOTTEN = 300.0

#: Reasons of one server that are remembered. There are fewer, unless the server makes them up.
REASONS_MAX = 20


class Failures:
    """The attempts since the connection was lost, or since the start."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """`clock` returns seconds."""
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """The connection is lost now: forget what was before."""
        self._began, self._rounds = self._clock(), 0
        self._servers: dict[str, _Server] = {}

    def failed(self) -> None:
        """An attempt has failed with all servers."""
        self._rounds += 1

    def line(self, server: str, error: ConnectError) -> str:
        """The line for the log about a failure with this server; empty if its reason was said already."""
        return self._servers.setdefault(server, _Server()).line(server, error, self._clock())

    def connected(self) -> str:
        """How many attempts it took, and how long: the end of a sentence. Empty if it was the first."""
        if not self._rounds:
            return ""
        return f" after {self._rounds + 1} attempts, {lasting(self._clock() - self._began)}"


class _Server:
    """What one server's failures were."""

    def __init__(self) -> None:
        # When each kind came last, in this order.
        self._seen: dict[str, float] = {}
        # Since the last line: how many attempts, and when it was.
        self._count, self._said = 0, 0.0

    def line(self, name: str, error: ConnectError, now: float) -> str:
        """See Failures.line()."""
        before = self._seen.pop(error.kind, None)
        self._seen[error.kind] = now
        if len(self._seen) > REASONS_MAX:
            del self._seen[next(iter(self._seen))]
        self._count += 1
        if before is not None and now - before <= FORGOTTEN:
            return ""
        failed = self._count - 1
        earlier = (
            f" (what was said before: {failed} time{'s' if failed > 1 else ''} in {lasting(now - self._said)})"
            if failed
            else ""
        )
        # The next line counts this attempt.
        self._count, self._said = 1, now
        return f"cannot connect to {name}: {error}{earlier}"


def lasting(seconds: float) -> str:
    """A time as people say it: 40 s, 3 min 20 s, 2 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
