"""``etherws client --wait``: when the start of a client is over, and with which exit status.

Without --wait the start is over after the first attempt, with status 0. With it, it is over when the client is
connected, when the server refuses its credentials, or when the time is over; the client goes on in each of these cases.
cli/commands.py puts this between client/reconnect.py, which tells of its attempts, and daemon.py, which reports.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import gevent

from etherws.cli.process.daemon import Ready
from etherws.errors import NOT_CONNECTED_STATUS, EtherwsError, NotAdmitted
from etherws.values import duration

log = logging.getLogger(__name__)

#: The value of --wait without SECONDS.
FOREVER = "forever"


class Start:
    """Takes the results of a client's attempts, and reports the one that ends the start."""

    def __init__(self, ready: Ready, wait: float) -> None:
        """`wait` is in seconds, math.inf for ever."""
        self._ready, self._wait = ready, wait
        self._failure = ""
        self._over = False
        if wait < math.inf:
            gevent.spawn_later(wait, self._time_over)

    def connected(self, message: str, status: int = 0, extra: Mapping[str, object] = MappingProxyType({})) -> None:
        """The client is connected for the first time. This is reported also after the start: systemd waits for it. The
        values are those of daemon.Ready."""
        self._over = True
        self._ready(message, status, extra)

    def failed(self, message: str, error: EtherwsError, extra: Mapping[str, object] = MappingProxyType({})) -> None:
        """An attempt has failed; `extra` is as in daemon.Ready. A refusal ends the start: most likely the next attempt
        is refused as well."""
        if self._over:
            return
        if isinstance(error, NotAdmitted):
            self._end(message, error.exit_status, extra)
            return
        if not self._failure:
            log.warning("%s", message, extra=dict(extra))
        self._failure = message

    def _time_over(self) -> None:
        if not self._over:
            failure = self._failure or "the first attempt to connect has no result yet"
            self._end(f"not connected within {self._wait:g} s: {failure}", NOT_CONNECTED_STATUS)

    def _end(self, message: str, status: int, extra: Mapping[str, object] = MappingProxyType({})) -> None:
        self._over = True
        self._ready(message, status, extra)


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """The command line with ``--wait=forever`` for a ``--wait`` without time. click would take what comes next, such as
    the URI, for its time."""
    found = list(arguments)
    for index, argument in enumerate(found):
        if argument == "--":
            break
        if argument == "--wait" and not _is_time(found[index + 1 : index + 2]):
            found[index] = f"--wait={FOREVER}"
    return found


def _is_time(words: Sequence[str]) -> bool:
    try:
        return bool(words) and (words[0] == FOREVER or duration(words[0]) >= 0)
    except ValueError:
        return False
