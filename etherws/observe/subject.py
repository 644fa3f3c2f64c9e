"""The interface by which observe/ sees a server or a client, and tells it what to do.

server/ and client/ have a class each that fits; neither knows observe/. All values are as docs/status.rst has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from etherws.counters import Values


class Subject(Protocol):
    """A server, with all of its workers, or a client. Each method may block its greenlet for a moment, and is called by
    several at once; none holds up frames."""

    #: "server" or "client".
    role: str

    def overview(self) -> Values:
        """All of the status but "sessions" and "parked"."""

    def totals(self) -> Values:
        """What was counted so far: "totals" of the overview, without looking at the rest."""

    def sessions(self) -> Iterator[Values]:
        """Each session, in the order of its interface's index. Others may go on between two of them."""

    def parked(self) -> Iterator[Values]:
        """Each port that is kept for a client that was lost."""

    def history(self, index: int) -> Values:
        """The last ten minutes of the session on the interface with this index: "step" (seconds from one sample to the
        next), "end" (the time of the last one, in seconds since 1970), and lists, oldest sample first, of equal length:
        "sent" and "received" (bit/s), "round_trip" and "queue_delay" (seconds, or None if none was measured), "drops"
        (frames in this step). Raises NoSuchClient."""

    def not_ready(self) -> str:
        """Why /readyz says 503, in words; empty if it says 200."""

    def kick(self, client: str, seconds: float, door: str) -> list[str]:
        """End the sessions of a client, and free what is parked for it: an identity, an address or an interface's name.
        It is refused for so many seconds. The log names the `door` that has asked. Return the labels of those that were
        ended. Raises NoSuchClient."""

    def reload(self) -> None:
        """As SIGHUP."""

    def stop(self) -> None:
        """End for good, soon after this has returned."""

    def drain(self, seconds: float, door: str) -> None:
        """Let nobody join any more, and end the sessions one by one within so many seconds, each with 1012. The log
        names the `door` that has asked."""
