"""The checks of one worker's clients, as the port process sees them: by number, and over when the worker ends.

Whether a check may begin is decided by server/checks.py, as without workers. Read next: worker_link.py, the user;
remote_port.py, the worker's side.
"""

from __future__ import annotations

from etherws import features
from etherws.errors import ChannelError, NoPort
from etherws.server.checks import Check, Checks
from etherws.workers.messages import Message, client_of, number, text


class LentChecks:
    """All of one worker."""

    def __init__(self, checks: Checks) -> None:
        """`checks` has those of all workers."""
        self._checks = checks
        self._running: dict[int, Check] = {}
        self._numbers = 0

    def begin(self, message: Message) -> dict[str, int]:
        """Let a client's check begin; return its number, and whether the server is full. Raises Refused, and
        ChannelError."""
        kind = text(message, "kind")
        if kind not in (features.CHECK, features.IDLE):
            raise ChannelError("'kind' is no kind of check")
        client = client_of(message)
        check = self._checks.begin(kind, client.identity, client.address)
        self._numbers += 1
        self._running[self._numbers] = check
        return {"check": self._numbers, "full": int(check.full)}

    def find(self, message: Message) -> Check:
        """The check that a message names. Raises NoPort if it has ended."""
        check = self._running.get(number(message, "check"))
        if check is None:
            raise NoPort("the check has ended")
        return check

    def over(self, message: Message) -> None:
        """The worker says that it has ended."""
        if check := self._running.pop(number(message, "check"), None):
            check.end()

    def end_all(self) -> None:
        """The worker has ended."""
        for check in self._running.values():
            check.end()
        self._running.clear()
