"""What is wrong with the sessions of a server or with a client's, as far as their numbers say: who is slow, and why.

Pure. A server with a thousand clients shows the worst few of each kind, with what to look at. Read next:
status_table.py, which shows it; docs/status.rst, what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from etherws.cli.operate import units
from etherws.cli.operate.cells import clipped, enclosed, shown
from etherws.errors import some_of

Values = Mapping[str, Any]

#: Seconds in the queue from which a person notices it. CoDel keeps it at 0.005 s, but for the moments of a burst.
LONG_QUEUE = 0.05

#: Seconds without a byte from a peer that count as silence. Pings come each 20 s, and the answers at once.
SILENT = 25.0

#: A round trip under load of so many seconds, and so many times the usual one: something on the path queues.
LONG_ROUND_TRIP, TIMES = 0.2, 4.0

#: Clients that a line names, and columns for each.
NAMED, NAME_MAX = 5, 24

#: Characters of a warning.
SENTENCE_MAX = 1000


def of_server(status: Values, label: Callable[[Values], str]) -> Iterator[str]:
    """A line for each kind of trouble that there is."""
    for warning in status.get("warnings", []):
        yield f"  ! {enclosed(shown(warning, SENTENCE_MAX))}"
    sessions = status["sessions"]
    waits = [(each["queue"]["delay"], each) for each in sessions if each["queue"]["delay"] >= LONG_QUEUE]
    silent = [(_silence(each), each) for each in sessions if _silence(each) >= SILENT]
    loaded = [(each["loaded_round_trip"], each) for each in sessions if _loads_its_path(each)]
    for found, what, name in (
        (waits, "packets wait long: the path is full", units.delay),
        (loaded, "round trip long under load: something on the path queues", units.delay),
        (silent, "silent", units.duration),
    ):
        if found:
            yield f"  ! {what}: {_worst(found, label, name)}"
    if status["state"] == "draining":
        yield "  ! it is draining: nobody may join"


def of_session(session: Values) -> Iterator[str]:
    """The same for one session, in its own words."""
    if session["queue"]["delay"] >= LONG_QUEUE:
        yield f"packets wait {units.delay(session['queue']['delay'])}: the path is full, or its rate is limited"
    if _loads_its_path(session):
        loaded, usual = session["loaded_round_trip"], session["round_trip"]
        yield f"round trip {units.delay(loaded)} under load, else {units.delay(usual)}: something on the path queues"
    if (session.get("heard") or 0) >= SILENT:
        yield f"nothing was heard for {units.duration(session['heard'])}: is the path cut?"
        return
    for one in session.get("connections") or []:
        if (one.get("heard") or 0) >= SILENT:
            heard = units.duration(one["heard"])
            yield f"connection {units.number(one['member'])}: nothing was heard for {heard}: is its path cut?"


def _silence(session: Values) -> float:
    """Seconds since the last byte; of several connections, by the one that is silent for longest."""
    return max(each.get("heard") or 0.0 for each in (session, *(session.get("connections") or [])))


def _loads_its_path(session: Values) -> bool:
    loaded, usual = session.get("loaded_round_trip"), session.get("round_trip")
    return bool(loaded and usual and loaded >= LONG_ROUND_TRIP and loaded >= TIMES * usual)


def _worst(found: Iterable[tuple[float, Values]], label: Callable[[Values], str], text: Callable[[float], str]) -> str:
    """The clients with the largest values, and how many more there are."""
    ordered = sorted(found, key=lambda pair: -pair[0])
    names = [f"{enclosed(clipped(label(each), NAME_MAX))} {text(value)}" for value, each in ordered]
    return some_of(names, NAMED)
