"""The servers that the client was given: tries them in their order, and logs why one cannot be reached.

Read next: attempt.py, which is one attempt with one server; failures.py, which says what is worth a line of the log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from etherws.client.attempt import RemoteServer
from etherws.client.failures import Failures
from etherws.client.link_state import LinkState
from etherws.counters import Values
from etherws.errors import ConnectError, NotAdmitted
from etherws.events import FAILED, event
from etherws.features import Membership
from etherws.log_limit import LogLimit
from etherws.tunnel.connection import Connection
from etherws.tunnel.tap import Tap

log = logging.getLogger(__name__)


class Servers:
    """The servers, and what was logged of each since the connection was lost."""

    def __init__(self, servers: Sequence[RemoteServer]) -> None:
        """They are tried in this order, starting with the first each time, unless that one drains."""
        self._servers = servers
        self._log = LogLimit(log)
        self.failures = Failures()
        self.link = LinkState(servers[0].name if servers else "")
        #: The server that was tried last, or that we are connected to.
        self._current = 0
        # With which one to begin the next time.
        self._first = 0

    def tokens(self) -> dict[str, str]:
        """The resume token of each, by RemoteServer.target."""
        return {server.target: server.resume for server in self._servers}

    def go_on_with(self, tokens: Mapping[str, str]) -> None:
        """Have each of them know us by these tokens, which tokens() of the last process has returned."""
        for server in self._servers:
            server.go_on_as(tokens[server.target])

    @property
    def address(self) -> str:
        """The address of the server that was tried last; empty if it is not known."""
        return self._servers[self._current].address if self._servers else ""

    def drains(self) -> None:
        """The server that we were connected to lets nobody in any more: begin with the one behind it, once."""
        self._first = (self._current + 1) % len(self._servers)

    @property
    def members(self) -> int:
        """How many connections the server that let us in last gives the link; 0 if it knows no links."""
        return self._servers[self._current].members if self._servers else 0

    def warn(self, kind: str, text: str) -> None:
        """Remember what is wrong with the way to the server that we are connected to: see RemoteServer.warn()."""
        server = self._servers[self._current]
        server.warn(kind, text)
        self.link.warnings = [each for each in server.warnings.values() if each]

    def join(self, tap: Tap, membership: Membership) -> Connection:
        """One more connection to the server that we are connected to, which is `membership` of the link. Raises
        ConnectError."""
        try:
            return self._servers[self._current].connect(tap, membership)
        except ConnectError:
            raise
        except Exception as exc:
            raise ConnectError(self._log.unexpected(exc)) from exc

    def connect(self, tap: Tap, membership: Membership | None = None, *, log_failure: bool) -> tuple[str, Connection]:
        """The name of the first server that lets us in, and the connection to it, which founds the link of
        `membership` if there is one. Without `log_failure` the caller says why none does.

        Raises ConnectError with the reason of each server; NotAdmitted if all of them refuse us.
        """
        failures: list[tuple[str, ConnectError]] = []
        lines: list[_Line] = []
        self.link.attempt()
        first, self._first = self._first, 0
        for number in range(len(self._servers)):
            self._current = (first + number) % len(self._servers)
            server = self._servers[self._current]
            self.link.trying(server.name, server.proxy)
            try:
                connection = server.connect(tap, membership)
            except ConnectError as exc:
                log.debug("cannot connect to %s: %s", server.name, exc)
                failures.append((server.name, exc))
            except Exception as exc:
                # One that nobody thought of. The client goes on.
                failures.append((server.name, ConnectError(self._log.unexpected(exc))))
            else:
                self._say(lines)
                self.link.warnings = [text for text in server.warnings.values() if text]
                for name, error in failures[-1:]:
                    # Why we are not where we would rather be.
                    self.link.failed(type(error)(f"{name}: {error}"))
                return server.name, connection
            fields = self.link.failure(str(failures[-1][1]))
            lines.append(_Line(server.name, self.failures.line(*failures[-1]), fields))
        self.failures.failed()
        if log_failure:
            self._say(lines)
        kind = NotAdmitted if all(isinstance(exc, NotAdmitted) for _, exc in failures) else ConnectError
        failure = kind("; nor to ".join(f"{name}: {exc}" for name, exc in failures))
        failure.wait = min(exc.wait for _, exc in failures)
        self.link.failed(failure)
        raise failure

    def refused(self, server: str, refusal: NotAdmitted) -> None:
        """Log that this server has refused us after its 101."""
        self._log.log(
            logging.WARNING,
            f"cannot connect to {server}",
            "cannot connect to %s",
            refusal,
            extra=event(FAILED, **self.link.failure(str(refusal))),
        )

    def _say(self, lines: Iterable[_Line]) -> None:
        """Log the lines about these servers."""
        for line in lines:
            if line.text:
                self._log.log(
                    logging.WARNING,
                    f"cannot connect to {line.server}",
                    "%s; trying again",
                    line.text,
                    extra=event(FAILED, **line.fields),
                )


class _Line(NamedTuple):
    """What the log says of a failure with a server; empty if it says nothing. The fields are the event's."""

    server: str
    text: str
    fields: Values
