"""The servers that the client was given: tries them in their order, and logs why one cannot be reached.

Read next: attempt.py, which is one attempt with one server; failures.py, which says what is worth a line of the log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from etherws.client.attempt import RemoteServer
from etherws.client.failures import Failures
from etherws.errors import ConnectError, NotAdmitted
from etherws.log_limit import LogLimit
from etherws.tunnel.connection import Connection
from etherws.tunnel.tap import Tap

log = logging.getLogger(__name__)


class Servers:
    """The servers, and what was logged of each since the connection was lost."""

    def __init__(self, servers: Sequence[RemoteServer]) -> None:
        """They are tried in this order, starting with the first each time."""
        self._servers = servers
        self._log = LogLimit(log)
        self.failures = Failures()

    def tokens(self) -> dict[str, str]:
        """The resume token of each, by RemoteServer.target."""
        return {server.target: server.resume for server in self._servers}

    def go_on_with(self, tokens: Mapping[str, str]) -> None:
        """Have each of them know us by these tokens, which tokens() of the last process has returned."""
        for server in self._servers:
            server.resume = tokens[server.target]

    def connect(self, tap: Tap, *, log_failure: bool) -> tuple[str, Connection]:
        """The name of the first server that lets us in, and the connection to it. Without `log_failure` the caller says
        why none does.

        Raises ConnectError with the reason of each server; NotAdmitted if all of them refuse us.
        """
        failures: list[tuple[str, ConnectError]] = []
        lines: list[tuple[str, str]] = []
        for server in self._servers:
            try:
                connection = server.connect(tap)
            except ConnectError as exc:
                log.debug("cannot connect to %s: %s", server.name, exc)
                failures.append((server.name, exc))
            except Exception as exc:
                # One that nobody thought of. The client goes on.
                failures.append((server.name, ConnectError(self._log.unexpected(exc))))
            else:
                self._say(lines)
                return server.name, connection
            lines.append((server.name, self.failures.line(*failures[-1])))
        self.failures.failed()
        if log_failure:
            self._say(lines)
        kind = NotAdmitted if all(isinstance(exc, NotAdmitted) for _, exc in failures) else ConnectError
        failure = kind("; nor to ".join(f"{name}: {exc}" for name, exc in failures))
        failure.wait = min(exc.wait for _, exc in failures)
        raise failure

    def refused(self, server: str, refusal: NotAdmitted) -> None:
        """Log that this server has refused us after its 101."""
        self._log.log(logging.WARNING, f"cannot connect to {server}", "cannot connect to %s", refusal)

    def _say(self, lines: Iterable[tuple[str, str]]) -> None:
        """Log the lines about these servers."""
        for name, line in lines:
            if line:
                self._log.log(logging.WARNING, f"cannot connect to {name}", "%s; trying again", line)
