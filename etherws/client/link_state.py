"""How the client's one link is: connected or not, to which server, what failed last, and when the next attempt comes.

Pure: reconnect.py and servers.py tell it what happens, and observed.py shows it. It holds up nothing and logs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from time import monotonic

from etherws.counters import Values
from etherws.errors import ConnectError, NotAdmitted

#: What the client does now: the "state" of docs/status.rst.
CONNECTED, CONNECTING, WAITING, STOPPING = "connected", "connecting", "waiting", "stopping"

#: The kinds of what failed last: no server could be reached, or none let us in, or the connection was lost.
UNREACHABLE, REFUSED, LOST = "unreachable", "refused", "lost"


class LinkState:
    """The link, from the start of the client to its end."""

    def __init__(
        self, server: str, *, clock: Callable[[], float] = monotonic, epoch: Callable[[], float] = time.time
    ) -> None:
        """`server` is the name of the first server. `clock` returns seconds, `epoch` those since 1970."""
        self._clock, self._epoch = clock, epoch
        self.state = CONNECTING
        #: The server that it is connected to, or that was tried last, and the proxy on the way.
        self.server, self.proxy = server, ""
        #: What failed last, in words; empty if nothing did. It stays when the link is there again.
        self.last_error = ""
        self._last_error_at: float | None = None
        self._last_error_kind: str | None = None
        #: The attempts since the connection was lost, or since the start; each tries all servers.
        self.attempts = 0
        #: What is wrong with the path, though it is connected: sentences.
        self.warnings: list[str] = []
        self._connections = 0
        self._next_attempt: float | None = None

    @property
    def reconnects(self) -> int:
        """How often the link has come back."""
        return max(0, self._connections - 1)

    def attempt(self) -> None:
        """An attempt begins."""
        self.attempts += 1
        self.warnings = []
        self._enter(CONNECTING)
        self._next_attempt = None

    def trying(self, server: str, proxy: str) -> None:
        """The attempt is now at this server, by this proxy; empty for none."""
        self.server, self.proxy = server, proxy

    def connected(self) -> Values:
        """The server that was tried last has let us in. Return the fields of the event."""
        self._connections += 1
        took, self.attempts = self.attempts, 0
        self._enter(CONNECTED)
        return {"server": self.server, "proxy": self.proxy or None, "attempts": took, "reconnects": self.reconnects}

    def failed(self, error: ConnectError) -> None:
        """The link cannot be made."""
        self._note(str(error), REFUSED if isinstance(error, NotAdmitted) else UNREACHABLE)

    def lost(self, reason: str, code: int | None, seconds: float) -> Values:
        """The link was lost after so many seconds, by a Close of this code or none. Return the fields of the event."""
        self._note(f"lost {self.server}: {reason}", LOST)
        return {"server": self.server, "proxy": self.proxy or None, "reason": reason, "code": code, "seconds": seconds}

    def failure(self, reason: str) -> Values:
        """The fields of an event about a failure with the server that was tried last."""
        return {"server": self.server, "reason": reason, "proxy": self.proxy or None, "attempts": self.attempts}

    def waiting(self, seconds: float) -> None:
        """The next attempt comes in so many seconds."""
        self._next_attempt = self._clock() + seconds
        self._enter(WAITING)

    def stopping(self) -> None:
        """The client ends."""
        self.state, self._next_attempt = STOPPING, None

    def _note(self, error: str, kind: str) -> None:
        self.last_error, self._last_error_at, self._last_error_kind = error, self._epoch(), kind

    def _enter(self, state: str) -> None:
        # The end is the last state, whatever is under way.
        if self.state != STOPPING:
            self.state = state

    def not_ready(self) -> str:
        """Why nothing passes, in words; empty if it is connected."""
        if self.state == CONNECTED:
            return ""
        if self.state == STOPPING:
            return "the client is stopping"
        # The error begins with the server's name.
        return f"not connected: {self.last_error}" if self.last_error else f"not connected to {self.server} yet"

    def values(self) -> Values:
        """For JSON."""
        left = None if self._next_attempt is None else max(0.0, self._next_attempt - self._clock())
        return {
            "server": self.server,
            "proxy": self.proxy or None,
            "last_error": self.last_error or None,
            "last_error_at": self._last_error_at,
            "last_error_kind": self._last_error_kind,
            "next_attempt": left,
            "attempts": self.attempts,
            "reconnects": self.reconnects,
        }
