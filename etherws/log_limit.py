"""A log that a flood of events cannot fill: the first records of a kind are logged, the others are counted.

How many were left out is said with the next record of the kind, and at the latest INTERVAL seconds after the first of
them. So the log stays short and complete: it has each kind, how often it came, and when it ended.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from time import monotonic
from types import MappingProxyType
from typing import Any

import gevent

from etherws.errors import printable

#: Records of one kind that are logged at once. Five show whether they all tell of the same peer.
BURST = 5

#: Seconds after which one more record of the kind is logged, and for which a count waits. In a flood without end each
#: kind has two lines in this time: six a minute.
INTERVAL = 20.0

#: Kinds that are counted apart, so that memory has a bound. The kinds beyond share one count.
KINDS_MAX = 100

#: The kind of those beyond KINDS_MAX.
_OTHERS = ""


class LogLimit:
    """Logs to one logger, a bounded number of records of each kind."""

    def __init__(
        self,
        log: logging.Logger,
        *,
        clock: Callable[[], float] = monotonic,
        later: Callable[[float, Callable[[], None]], object] = gevent.spawn_later,
    ) -> None:
        """`clock` returns seconds; `later` calls a function after so many seconds."""
        self._log, self._clock, self._later = log, clock, later
        self._kinds: dict[str, _Kind] = {}

    def log(
        self, level: int, kind: str, message: str, *args: Any, extra: Mapping[str, object] = MappingProxyType({})
    ) -> None:
        """Log `message` with `args` and `extra` as logging.Logger.log() does, or only count it.

        `kind` is a name from our code, such as "foreign origin". It must not hold a peer's words or address: then a
        peer could make up kinds.
        """
        if not self._log.isEnabledFor(level):
            return
        now = self._clock()
        found = self._kinds.get(kind) or self._new_kind(kind, now)
        if found.may_pass(now):
            if left_out := found.take_left_out():
                message, args = "%s (%d more like it were left out)", (_text(message, args), left_out)
            self._log.log(level, message, *args, extra=dict(extra))
            return
        # The text and not the arguments: those may be errors, whose tracebacks would keep what they saw alive.
        found.last = _text(message, args)
        found.left_out += 1
        if not found.timed:
            found.timed = True
            self._later(INTERVAL, lambda: self._say_left_out(found, level))

    def unexpected(self, error: BaseException) -> str:
        """Log an error that nobody thought of, with its traceback; return it as one line of text. Its kind is the place
        where it was raised."""
        place = traceback.extract_tb(error.__traceback__)[-1:]
        lines = "".join(traceback.format_exception(error)).rstrip()
        self.log(logging.ERROR, f"unexpected {place}", "unexpected error; please report it\n%s", lines)
        return printable(f"unexpected {type(error).__name__}: {error}")

    def _say_left_out(self, kind: _Kind, level: int) -> None:
        kind.timed = False
        if left_out := kind.take_left_out():
            self._log.log(level, "%s (the last of %d like it that were left out)", kind.last, left_out)

    def _new_kind(self, name: str, now: float) -> _Kind:
        if len(self._kinds) >= KINDS_MAX:
            # One that a new kind would be the same as can be forgotten.
            self._kinds = {name: kind for name, kind in self._kinds.items() if not kind.is_like_new(now)}
            if len(self._kinds) >= KINDS_MAX:
                name = _OTHERS
        return self._kinds.setdefault(name, _Kind(now))


def _text(message: str, args: tuple[Any, ...]) -> str:
    return message % args if args else message


class _Kind:
    """One kind's records: how many may still pass, and how many were left out since the last that was logged."""

    def __init__(self, now: float) -> None:
        self.left_out = 0
        #: The text of the last one left out.
        self.last = ""
        #: Whether a call of _say_left_out() is to come.
        self.timed = False
        # When the burst is whole again.
        self._whole = now

    def may_pass(self, now: float) -> bool:
        """Whether a record at `now` is logged; if so, it counts."""
        whole = max(self._whole, now) + INTERVAL
        if whole > now + BURST * INTERVAL:
            return False
        self._whole = whole
        return True

    def take_left_out(self) -> int:
        """The number left out so far. It begins at 0 again."""
        left_out, self.left_out = self.left_out, 0
        return left_out

    def is_like_new(self, now: float) -> bool:
        """Whether nothing would be lost if this was forgotten."""
        return self._whole <= now and not self.timed


def log_unexpected_errors() -> None:
    """Have gevent log the errors that end a greenlet. It would print them, which may block."""
    limit = LogLimit(logging.getLogger(__name__))

    def print_exception(context: object, kind: Any, error: BaseException | None, trace: Any) -> None:
        limit.unexpected(error if isinstance(error, BaseException) else kind(error))

    gevent.get_hub().print_exception = print_exception  # type: ignore[method-assign, assignment]
