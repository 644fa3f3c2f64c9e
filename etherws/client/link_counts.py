"""What a link has carried and dropped, by all of its sessions: those that go on, and those that are over.

Read next: members.py, which has the sessions; tunnel/link_status.py, which adds up what is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from time import time

from etherws.counters import Traffic, Values
from etherws.tunnel import link_status
from etherws.tunnel.session import Session


class LinkCounts:
    """The counters of one link."""

    def __init__(
        self,
        live: Mapping[int, Session],
        retired: Sequence[Session],
        filtered: Callable[[], Counter[str]],
        *,
        alone: bool,
    ) -> None:
        """`live` and `retired` are the sessions that go on, and change later; `alone` is whether there is only one for
        good. `filtered` returns what the filters of the far LAN have dropped, of which the sessions do not know."""
        self._live, self._retired, self._filtered, self._alone = live, retired, filtered, alone
        self._since = time()
        # Of the sessions that are over.
        self._sent, self._received, self._drops = Traffic(), Traffic(), Counter[str]()

    def over(self, session: Session) -> None:
        """This session has ended."""
        _add(session, self._sent, self._received, self._drops)

    def lost(self, why: str, count: int) -> None:
        """So many packets were lost with a session."""
        self._drops[why] += count

    def summary(self, last: Session) -> str:
        """What was dropped, at the end of the last session, as the end of a sentence."""
        return last.summary(self._drops + self._filtered())

    def text(self) -> str:
        """What was carried and dropped, as the end of a sentence; empty if there is no session any more."""
        if not self._live:
            return ""
        first, *others = self._live.values()
        sent, received, drops = self._others(others)
        return first.counters(drops + self._filtered(), (sent.bytes, received.bytes))

    def status(self) -> Values:
        """The link's own part of a session in docs/status.rst; empty if there is no session any more."""
        parts = {number: session.status() for number, session in sorted(self._live.items())}
        if not parts:
            return {}
        values = parts[0] if self._alone else {**link_status.together(parts, self._others([])), "since": self._since}
        return {**values, "drops": dict(Counter(values["drops"]) + self._filtered())}

    def history(self) -> Values:
        """The last ten minutes, as tunnel/history.py has them; empty if there is no session any more."""
        parts = [session.history() for session in self._live.values()]
        return link_status.histories_together(parts) if len(parts) > 1 else parts[0] if parts else {}

    def _others(self, live: Sequence[Session]) -> tuple[Traffic, Traffic, Counter[str]]:
        """What all that are over or retired have sent, received and dropped, and these that are live."""
        sent, received, drops = Traffic(), Traffic(), Counter(self._drops)
        sent.add(self._sent)
        received.add(self._received)
        for session in [*live, *self._retired]:
            _add(session, sent, received, drops)
        return sent, received, drops


def _add(session: Session, sent: Traffic, received: Traffic, drops: Counter[str]) -> None:
    values = session.status()
    sent.add(Traffic(**values["sent"]))
    received.add(Traffic(**values["received"]))
    drops.update(values["drops"])
