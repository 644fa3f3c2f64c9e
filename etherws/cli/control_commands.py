"""The commands for who runs a server or a client: status, events, kick, stop, reload, drain and page.

Only their options are here. Each asks the process by its control socket. Read next: cli/operate/watching.py, what is
shown; cli/operate/operating.py, what is done; cli/operate/instances.py, which process is meant.
"""

from __future__ import annotations

import click

from etherws.cli.examples import (
    drain_notes,
    events_notes,
    kick_notes,
    page_notes,
    reload_notes,
    status_notes,
    stop_notes,
)
from etherws.cli.file_options import FileName
from etherws.cli.number_options import Duration
from etherws.cli.sections import Command, Sections
from etherws.errors import ControlError


def _control() -> click.Option:
    return click.Option(
        ["--control"],
        type=FileName(),
        metavar="FILE",
        help="Ask the process that has this control socket.  [default: the one of this name, or the only one]",
    )


def _options(*options: click.Option) -> Sections:
    return {"Options": [*options, _control()]}


def running(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For a shell: what runs on this machine, as far as this user may see it."""
    from etherws.cli.operate import instances

    try:
        return [each.name for each in instances.all_instances() if each.name.startswith(incomplete)]
    except ControlError:
        return []


_status = _options(
    click.Option(["--json"], is_flag=True, help="Print JSON, one object a line; docs/status.rst describes it."),
    click.Option(["--watch"], is_flag=True, help="Show it again each two seconds, until Ctrl-C."),
    click.Option(
        ["--client"],
        metavar="CLIENT",
        help="Show all of one client: its identity, address or interface.  [default: a table of all]",
    ),
)

_events = _options(
    click.Option(["--follow", "-f"], is_flag=True, help="Go on with what happens, until Ctrl-C."),
    click.Option(["--json"], is_flag=True, help="Print JSON, one object a line; docs/logs.rst describes it."),
)

_kick = _options(
    click.Option(
        ["--for", "seconds"],
        type=Duration(),
        default="0",
        metavar="TIME",
        show_default=True,
        help="Refuse the client for so long: 30s, 10m, 1h.",
    ),
)

_drain = _options(
    click.Option(
        ["--over", "seconds"],
        type=Duration(),
        default="5m",
        metavar="TIME",
        show_default=True,
        help="End the sessions one after another within so long: 30s, 10m, 1h.",
    ),
)


@click.command("status", cls=Command, sections=_status, notes=status_notes)
@click.argument("name", required=False, shell_complete=running)
def status(name: str | None, json: bool, watch: bool, client: str | None, control: str | None) -> None:
    """Show who is connected, and what is slow.

    NAME is a unit's instance, server-lan or client-lan, or an interface; without it, all are shown.
    """
    from etherws.cli.operate import watching

    watching.status(_named(name, control), control, as_json=json, watch=watch, client=client)


@click.command("events", cls=Command, sections=_events, notes=events_notes)
@click.argument("name", required=False, shell_complete=running)
def events(name: str | None, follow: bool, json: bool, control: str | None) -> None:
    """Show who joined, left or was refused, and why.

    The process keeps the last thousand events.
    """
    from etherws.cli.operate import watching

    watching.events(_named(name, control), control, follow=follow, as_json=json)


@click.command("kick", cls=Command, sections=_kick, notes=kick_notes)
@click.argument("words", metavar="[NAME] CLIENT", nargs=-1, required=True)
def kick(words: tuple[str, ...], seconds: float, control: str | None) -> None:
    """End a client's sessions.

    An interface that is kept for it is removed. CLIENT is an identity, an address or an interface, as etherws status
    shows them.
    """
    from etherws.cli.operate import operating

    if len(words) > 2:
        raise click.UsageError("there is an argument too many; write etherws kick [NAME] CLIENT")
    name, client = words if len(words) == 2 else (None, words[0])
    operating.kick(_named(name, control), control, client, seconds)


@click.command("stop", cls=Command, sections=_options(), notes=stop_notes)
@click.argument("name", required=False, shell_complete=running)
def stop(name: str | None, control: str | None) -> None:
    """End a server or a client for good.

    Its interfaces are removed.
    """
    from etherws.cli.operate import operating

    operating.stop(_named(name, control), control)


@click.command("reload", cls=Command, sections=_options(), notes=reload_notes)
@click.argument("name", required=False, shell_complete=running)
def reload(name: str | None, control: str | None) -> None:
    """Have the files of a server read again.

    A client connects at once, or checks its connection.
    """
    from etherws.cli.operate import operating

    operating.reload(_named(name, control), control)


@click.command("drain", cls=Command, sections=_drain, notes=drain_notes)
@click.argument("name", required=False, shell_complete=running)
def drain(name: str | None, seconds: float, control: str | None) -> None:
    """Send all clients elsewhere, one by one.

    Nobody may join this server any more. Its clients try their next --uri.
    """
    from etherws.cli.operate import operating

    operating.drain(_named(name, control), control, seconds)


@click.command("page", cls=Command, sections=_options(), notes=page_notes)
@click.argument("name", required=False, shell_complete=running)
def page(name: str | None, control: str | None) -> None:
    """Print an address of the live page.

    It has a token for one login in the next minute. The server or client must have been started with --monitor.
    """
    from etherws.cli.operate import operating

    operating.page(_named(name, control), control)


def _named(name: str | None, control: str | None) -> str | None:
    if name is not None and control is not None:
        raise click.UsageError("--control names the process already; leave NAME out")
    return name


#: In the order in which ``--help`` shows them.
COMMANDS = (status, events, kick, reload, drain, stop, page)
