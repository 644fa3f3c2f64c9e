"""Who was refused, and why: counted by reason, and told in the log with the number that the client's line has, too.

All refusals of this process come by here: those with an answer in HTTP, and those before. The log is limited by reason,
so that a flood does not fill it. Read next: takeover.py, http.py and front_door.py, which call this; events.py.
"""

from __future__ import annotations

import logging
import os
from collections import Counter

from etherws.errors import Refused, printable
from etherws.events import REFUSED, event
from etherws.log_limit import LogLimit

log = logging.getLogger(__name__)

#: Reasons that are counted apart. They are words of ours; should one ever be a peer's, it fills nothing.
REASONS_MAX = 64

#: The reason of those beyond.
OTHER = "other"


class Refusals:
    """Of one process."""

    def __init__(self, limit: LogLimit | None = None) -> None:
        """`limit` logs."""
        self._limit = limit or LogLimit(log)
        self._counts: Counter[str] = Counter()

    def counts(self) -> dict[str, int]:
        """How many were refused so far, by reason."""
        return dict(self._counts)

    def count(self, kind: str) -> None:
        """Count one more, by a reason that is a few words of ours."""
        self._counts[kind if kind in self._counts or len(self._counts) < REASONS_MAX else OTHER] += 1

    def note(self, refusal: Refused, address: str, identity: str | None = None) -> str:
        """Count and log a refusal; return its number, for the answer. `address` is the client's, and `identity` its
        name, as far as that is known."""
        told = f"was refused: {refusal.status}: {refusal}"
        if refusal.warning:
            log.debug("%s %s", address, told)
        text = refusal.warning or told
        level = logging.WARNING if refusal.warning else logging.INFO
        return self.add(refusal.kind, address, text, level, identity=identity, status=int(refusal.status[:3]))

    def add(
        self,
        kind: str,
        address: str,
        text: str,
        level: int = logging.INFO,
        *,
        identity: str | None = None,
        status: int | None = None,
    ) -> str:
        """As note(), for a connection that ends before HTTP. `kind` is what it is counted by, and `text` what the log
        says of the client, such as "was refused: …"."""
        self.count(kind)
        number = os.urandom(4).hex()
        self._limit.log(
            level,
            f"{kind} {level}",
            "%s%s%s (refusal %s)",
            address + (f" as {printable(identity)!r}" if identity else ""),
            " " if text.startswith("was ") else ": ",
            text,
            number,
            extra=event(
                REFUSED,
                address=address,
                identity=printable(identity) if identity else None,
                reason=text.removeprefix("was refused: "),
                cause=kind,
                status=status,
                refusal=number,
            ),
        )
        return number


#: The one of this process.
refusals = Refusals()
