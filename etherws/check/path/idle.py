"""How long a connection lives on which nothing is sent: several at once, each silent for another time.

Read next: idle_findings.py, which says for how long, and what the results mean; measuring.py, one session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic

import gevent
from gevent.queue import Queue

from etherws.check.findings import Finding, Verdict
from etherws.check.path.idle_findings import Lived, idle_finding, silences
from etherws.check.path.measuring import Measuring
from etherws.close_codes import CloseCode
from etherws.errors import ConnectError, EtherwsError
from etherws.tunnel.connection import Connection

#: Seconds for an answer: TCP sends again three times by then.
ANSWER_SECONDS = 5.0


def idle(connect: Callable[[], Connection], seconds: float) -> Iterator[Finding]:
    """What was found, up to so many seconds. `connect` makes a new connection, on which the server has agreed to the
    feature "check=idle"; it raises ConnectError. This closes what it makes."""
    results: Queue[Lived | ConnectError] = Queue()
    wanted = silences(seconds)
    greenlets = [gevent.spawn(_try, connect, silence, results) for silence in wanted]
    lived: list[Lived] = []
    refusals: list[ConnectError] = []
    try:
        while len(lived) + len(refusals) < len(wanted):
            found = results.get()
            if isinstance(found, ConnectError):
                refusals.append(found)
                continue
            lived.append(found)
            if not found.answered:
                # Those that are silent for longer are cut as well.
                break
    finally:
        gevent.killall(greenlets)
    if lived:
        yield idle_finding(lived)
    else:
        text = f"no connection could be made for it: {refusals[0]}"
        yield Finding("idle", text, Verdict.SKIPPED, "", {"alive_seconds": None, "cut_seconds": None, "closed": None})


def _try(connect: Callable[[], Connection], silence: float, results: Queue[Lived | ConnectError]) -> None:
    """Make a connection, be silent, and ask for an answer."""
    try:
        connection = connect()
    except EtherwsError as exc:
        # Also a file that could be used for the connections before. Who waits for the results hears of each.
        results.put(exc if isinstance(exc, ConnectError) else ConnectError(str(exc)))
        return
    try:
        results.put(_lived(connection, silence))
    finally:
        connection.close(CloseCode.NORMAL)


def _lived(connection: Connection, silence: float) -> Lived:
    began = monotonic()
    try:
        with Measuring(connection) as measuring:
            # What is cut here is cut for another reason, but it is cut.
            measuring.probe()
            measuring.wait(lambda: not measuring.unanswered, ANSWER_SECONDS)
            began = monotonic()
            measuring.wait(lambda: False, silence)
            measuring.probe()
            return Lived(silence, measuring.wait(lambda: not measuring.unanswered, ANSWER_SECONDS))
    except EtherwsError as exc:
        return Lived(silence, False, monotonic() - began, str(exc))
