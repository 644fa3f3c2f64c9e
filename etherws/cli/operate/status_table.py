"""What ``etherws status`` shows of a server or a client: a summary, what is wrong, and a table of its sessions.

Pure: makes lines of text of the values that docs/status.rst describes. The most important column comes first; a
terminal that is too narrow for all has those that fit. Read next: status_details.py, one session with all that is
known; cells.py, the columns; units.py, the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etherws.cli.operate import troubles, units
from etherws.cli.operate.cells import cell, clipped, enclosed, shown, width, wrapped

#: Values as JSON has them.
Values = Mapping[str, Any]

#: Columns of a terminal between two columns of the table.
GAP = 2

#: Columns of a terminal that a client's name, and any other word, has at most.
NAME_MAX, WORD_MAX = 24, 40


class Column(NamedTuple):
    """One column: its heading, what it shows of a session or a parked port, and whether it is a number. If nothing is
    to be shown in any row, there is no column."""

    heading: str
    text: Callable[[Values], str]
    right: bool = False
    most: int = WORD_MAX


def label(session: Values) -> str:
    """What a session is called: the client's identity, else its address; the server's name for a client's own."""
    return shown(session.get("server") or session.get("identity") or session.get("address") or "?")


def _connections(session: Values) -> str:
    """How many connections a client has, if these are several."""
    return units.number(session["members"]) if session.get("members", 1) > 1 else ""


def _workers(session: Values) -> str:
    """The process that has the client; several, if its connections are at several."""
    numbers = dict.fromkeys(one.get("worker") for one in session.get("connections") or [session])
    return " ".join(shown(number) for number in numbers if number)


def _columns(now: float) -> list[Column]:
    """The columns for sessions, the most important first. `now` is when they were looked at."""
    return [
        Column("CLIENT", label, most=NAME_MAX),
        Column("ADDRESS", lambda each: shown(each.get("address") or "")),
        Column("DEVICE", lambda each: shown(each.get("device") or "")),
        Column("UP", lambda each: units.short(now - each["since"]), right=True),
        Column("RTT", lambda each: units.delay(each.get("round_trip")), right=True),
        Column("LOADED", lambda each: units.delay(each.get("loaded_round_trip")), right=True),
        Column("QUEUE", lambda each: units.delay(each["queue"]["delay"]), right=True),
        Column("DROPS", lambda each: units.number(sum(each["drops"].values())), right=True),
        Column("SENDS", lambda each: units.bit_rate(each["rates"]["sent"]), right=True),
        Column("RECEIVES", lambda each: units.bit_rate(each["rates"]["received"]), right=True),
        Column("HEARD", lambda each: units.short(each.get("heard")), right=True),
        Column("SENT", lambda each: units.size(each["sent"]["bytes"]), right=True),
        Column("RECEIVED", lambda each: units.size(each["received"]["bytes"]), right=True),
        Column("BRIDGE", lambda each: shown(each.get("bridge") or "")),
        Column("CONNS", _connections, right=True),
        Column("WIRE", lambda each: shown(each.get("wire") or ""), right=True),
        Column("TLS", lambda each: shown((each.get("tls") or {}).get("version", "").removeprefix("TLSv"))),
        Column("MACS", lambda each: units.number(len(each["macs"]) + each.get("macs_more", 0)), right=True),
        Column("BACK", lambda each: units.number(each["reconnects"]) if each.get("reconnects") else "", right=True),
        Column("PROXY", lambda each: shown(each.get("proxy") or "")),
        Column("WORKER", _workers, right=True),
        Column("CONGESTION", lambda each: shown(each.get("congestion") or "")),
    ]


_PARKED = [
    Column("PARKED", label, most=NAME_MAX),
    Column("ADDRESS", lambda each: shown(each.get("address") or "")),
    Column("DEVICE", lambda each: shown(each.get("device") or "")),
    Column("REMOVED IN", lambda each: units.duration(each["left"]), right=True),
    Column("BRIDGE", lambda each: shown(each.get("bridge") or "")),
    Column("MACS", lambda each: units.number(len(each["macs"]) + each.get("macs_more", 0)), right=True),
]


def server_lines(status: Values, columns: int | None, *, busiest: bool = False) -> Iterator[str]:
    """A server. `columns` are the terminal's, None for as many as it takes. The sessions are in the order of their
    names or, with `busiest`, those with the most traffic first."""
    sessions, parked, now = status["sessions"], status["parked"], status["now"]
    for line in (*_server_summary(status), *troubles.of_server(status, label)):
        yield from wrapped(line, columns)
    ordered = sorted(sessions, key=_traffic if busiest else _by_name)
    for rows, kind in ((ordered, _columns(now)), (sorted(parked, key=_by_name), _PARKED)):
        if rows:
            yield ""
            yield from table(rows, kind, columns)


def table(rows: Sequence[Values], columns: Iterable[Column], most: int | None) -> Iterator[str]:
    """A heading, and a line for each row, of so many columns of a terminal at most."""
    left = most
    taken: list[tuple[list[str], int, bool]] = []
    for column in columns:
        texts = [clipped(column.text(row), column.most) for row in rows]
        if not any(text and text != "-" for text in texts) and taken:
            continue
        wide = max(width(text) for text in (column.heading, *texts))
        if left is not None:
            # The first column is cut, if need be; a later one is there or not.
            wide = min(wide, left) if not taken else wide
            if wide > left:
                break
            left -= wide + GAP
        taken.append(([column.heading, *texts], wide, column.right))
    for number in range(len(rows) + 1):
        cells = (cell(texts[number], wide, right=right) for texts, wide, right in taken)
        yield (" " * GAP).join(cells).rstrip()


def _server_summary(status: Values) -> Iterator[str]:
    sessions, parked, totals = status["sessions"], status["parked"], status["totals"]
    counts = f"{_counted(len(sessions), 'client')}, {units.number(len(parked))} parked"
    yield (
        f"server {_word(status['name'])}: {_word(status['state'])}, {counts},"
        f" for {units.duration(status['now'] - status['started'])}"
    )
    bridge = f" in {_word(status['bridge'])}" if status.get("bridge") else ""
    where = f"{_word(status['listen'])}, {_word(status['device'])}{bridge}"
    yield f"  {where}, version {_word(status['version'])}, process {_word(status['pid'])}"
    yield f"  {traffic(sessions, totals)}"
    for line in round_trips(totals):
        yield f"  {line}"
    if totals["drops"]:
        yield f"  dropped: {reasons(totals['drops'])}"
    if status.get("refusals"):
        yield f"  refused: {reasons(status['refusals'])}"
    if workers := status.get("workers"):
        silent = [str(int(each["pid"])) for each in workers if not each["answers"]]
        known = ", ".join(f"{int(each['pid'])} has {units.number(each['sessions'])}" for each in workers)
        yield f"  workers: {known}" + (f"; without an answer: {', '.join(silent)}" if silent else "")


def traffic(sessions: Iterable[Values], totals: Values) -> str:
    """What goes now, and what went since the start."""
    sent, received = (sum(each["rates"][way] for each in sessions) for way in ("sent", "received"))
    return (
        f"sends {units.bit_rate(sent)}, receives {units.bit_rate(received)};"
        f" so far {units.size(totals['sent']['bytes'])} sent, {units.size(totals['received']['bytes'])} received"
    )


def round_trips(totals: Values) -> Iterator[str]:
    """What the histograms say of the time since the start."""
    for name, key in (
        ("round trips", "round_trip"),
        ("round trips under load", "loaded_round_trip"),
        ("waits in the queue", "queue_delay"),
    ):
        if (found := totals.get(key)) and sum(found["counts"]):
            yield f"{name}: half {_below(found, 0.5)}, 99 % {_below(found, 0.99)}"


def reasons(counts: Mapping[str, int]) -> str:
    """Counts by reason, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{units.number(count)} {_word(reason)}" for reason, count in ordered)


def _below(histogram: Values, part: float) -> str:
    """The bound below which this part of the values is."""
    wanted, seen = part * sum(histogram["counts"]), 0
    for bound, count in zip(histogram["bounds"], histogram["counts"], strict=False):
        seen += count
        if seen >= wanted:
            return f"up to {units.delay(bound)}"
    return f"over {units.delay(histogram['bounds'][-1])}"


def _word(text: object) -> str:
    """A word within a sentence."""
    return enclosed(shown(text))


def _counted(count: int, what: str) -> str:
    return f"{units.number(count)} {what}{'' if count == 1 else 's'}"


def _by_name(each: Values) -> list[tuple[bool, int, str]]:
    """A key for names with numbers in them, as people count: branch2 before branch10."""
    parts = re.split(r"([0-9]{1,18})", label(each).lower())
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _traffic(each: Values) -> float:
    return -float(each["rates"]["sent"] + each["rates"]["received"])
