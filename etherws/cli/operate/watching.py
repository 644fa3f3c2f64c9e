"""``etherws status`` and ``etherws events``: asks the processes, and prints what they say, once or again and again.

What is printed was harmless before, and each line is checked once more here. Read next: status_table.py and
status_details.py, the text; control.py, which asks; screen.py.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

import click

from etherws.cli.operate import status_details, status_table, units
from etherws.cli.operate.cells import harmless, shown
from etherws.cli.operate.control import Control
from etherws.cli.operate.instances import all_instances, chosen, nothing_runs
from etherws.cli.operate.screen import Screen, columns
from etherws.counters import Values
from etherws.errors import ControlError, NoAnswer, NoSuchClient, NotRunning

#: Seconds between two looks of --watch. Rates are of five seconds.
WATCH_INTERVAL = 2.0

#: Seconds until a process that has ended is looked for again.
AGAIN = 1.0

#: Characters of an event's text: a traceback has some thousands (observe/events.py, TEXT_MAX).
EVENT_MAX = 4000

#: What a status of another form makes our reading of it raise.
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, IndexError)


def status(name: str | None, control: str | None, *, as_json: bool, watch: bool, client: str | None) -> None:
    """Print the status of the process of this name, or of all. Raises ControlError, NoSuchClient."""

    def ask() -> list[Control]:
        if name is not None or control is not None:
            return [chosen(name, control)]
        return all_instances()

    _never_fail(sys.stdout)
    show = _json if as_json else _text
    if watch:
        _watch(ask, lambda found: show(found, client, busiest=True), on_screen=not as_json and sys.stdout.isatty())
        return
    found, errors = _ask_all(ask())
    for error in errors if found else errors[1:]:
        click.echo(harmless(f"etherws: {error}"), err=True)
    if not found:
        raise errors[0]
    for line in show(found, client, busiest=False):
        click.echo(line)


def events(name: str | None, control: str | None, *, follow: bool, as_json: bool) -> None:
    """Print the events of a process; with `follow` also those to come, for ever. Raises ControlError."""
    _never_fail(sys.stdout)
    process = chosen(name, control)
    show = json.dumps if as_json else _event_text
    try:
        if follow:
            _interruptible(lambda: _follow(process, show))
            return
        for values in process.get("/events?since=0")["events"]:
            click.echo(show(values))
    except _MALFORMED as exc:
        raise ControlError(f"{process.name}: its events are not understood; is it of another version?") from exc


def _follow(process: Control, show: Callable[[Values], str]) -> None:
    """Print the events of a process, and those of each process that comes in its place."""
    number, heard, gone = 0, False, False
    while True:
        try:
            for values in process.follow(number):
                if gone:
                    click.echo(f"etherws: {process.name} answers again", err=True)
                heard, gone = True, False
                if values is not None:
                    number = int(values["number"]) + 1
                    click.echo(show(values))
                    sys.stdout.flush()
        except (NotRunning, NoAnswer) as exc:
            if not heard:
                raise
            if not gone:
                click.echo(harmless(f"etherws: {exc}; waiting for it"), err=True)
            gone = True
        time.sleep(AGAIN)


def _ask_all(processes: Iterable[Control]) -> tuple[list[Values], list[ControlError]]:
    """The status of each, and the errors of those that do not say it: one at least, if there is no status."""
    found, errors = [], list[ControlError]()
    for process in processes:
        try:
            values = process.get("/status")
            _understand(values, process.name)
            found.append(values)
        except ControlError as exc:
            errors.append(exc)
    if not found and not errors:
        errors.append(NotRunning(nothing_runs()))
    return found, errors


def _understand(values: Values, name: str) -> None:
    """Raise ControlError unless all of this can be shown."""
    try:
        list(_lines(values, None, busiest=False))
        for each in (*values["sessions"], *values["parked"]):
            list(_details(each, values["now"]))
    except _MALFORMED as exc:
        raise ControlError(f"{name}: its status is not understood; is it of another version?") from exc


def _watch(ask: Callable[[], list[Control]], show: Callable[[list[Values]], Iterable[str]], *, on_screen: bool) -> None:
    """Show it again and again, until Ctrl-C. What ends meanwhile, and begins again, is no reason to end."""
    first = ask()
    if not first:
        raise NotRunning(nothing_runs())

    def once() -> Iterator[str]:
        try:
            found, errors = _ask_all(ask())
        except ControlError as exc:
            found, errors = [], [exc]
        for error in errors:
            yield harmless(f"etherws: {error}")
        try:
            yield from show(found) if found else ()
        except NoSuchClient as exc:
            yield harmless(f"etherws: {exc}")

    def on_a_screen() -> None:
        with Screen(sys.stdout) as screen:
            while True:
                screen.draw([f"{units.moment(time.time())}  Ctrl-C ends", "", *once()])
                time.sleep(WATCH_INTERVAL)

    def as_lines() -> None:
        while True:
            for line in once():
                click.echo(line)
            sys.stdout.flush()
            time.sleep(WATCH_INTERVAL)

    _interruptible(on_a_screen if on_screen else as_lines)


def _interruptible(work: Callable[[], None]) -> None:
    """Work until Ctrl-C, which is the way to end it."""
    try:
        work()
    except KeyboardInterrupt:
        return


def _text(found: list[Values], client: str | None, *, busiest: bool) -> Iterator[str]:
    """For people; what is of several things has an empty line between."""
    most = columns(sys.stdout)
    if client is None:
        things = [_lines(values, most, busiest=busiest) for values in found]
    else:
        things = [_details(each, values["now"]) for values, each in _clients(found, client)]
    for number, lines in enumerate(things):
        if number:
            yield ""
        for line in lines:
            yield harmless(line)


def _json(found: list[Values], client: str | None, *, busiest: bool) -> Iterator[str]:
    """For programs: one object a line."""
    objects = found if client is None else [each for _, each in _clients(found, client)]
    for values in objects:
        yield json.dumps(values)


def _lines(values: Values, most: int | None, *, busiest: bool) -> Iterator[str]:
    if values["role"] == "client":
        return status_details.client_lines(values)
    return status_table.server_lines(values, most, busiest=busiest)


def _details(each: Values, now: float) -> Iterator[str]:
    show = status_details.parked_lines if "left" in each else status_details.session_lines
    return show(each, now)


def _clients(found: list[Values], client: str) -> list[tuple[Values, Values]]:
    """The sessions and parked ports of this client, each with the status that it is of. Raises NoSuchClient."""
    names = ("identity", "address", "device", "server")
    matching = [
        (values, each)
        for values in found
        for each in (*values["sessions"], *values["parked"])
        if client in [each.get(name) for name in names]
    ]
    if not matching:
        raise NoSuchClient(f"no client has the identity, the address or the interface {shown(client)!r}")
    return matching


def _event_text(values: Values) -> str:
    """For people: when, how grave, of which kind, and what; further lines of the text are indented."""
    first, *rest = [shown(line, EVENT_MAX) for line in str(values["text"]).splitlines()] or [""]
    begin = f"{units.moment(values['time'])} {shown(values['level']):<7} {shown(values['kind']):<7} {first}"
    return "\n".join(harmless(line) for line in (begin, *(f"    {line}" for line in rest)))


def _never_fail(output: TextIO) -> None:
    """Have a character that this terminal does not know become a "?"."""
    if isinstance(output, io.TextIOWrapper):
        output.reconfigure(errors="replace")
