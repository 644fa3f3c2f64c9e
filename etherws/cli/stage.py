"""``etherws stage``, which the units of contrib/ run as root: it prepares what their etherws may not do itself.

That etherws has a user of its own, and CAP_NET_ADMIN alone. So root copies the files that its options name, before the
start and at each reload: LoadCredential= would copy them at the start only. With ``--open``, root opens what takes
another capability, and has systemd keep it for the start: a port below 1024, and packet sockets. The options come from
the environment, as in the unit. This command is not for people, so no help shows it. Read next:
cli/process/staged_copies.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

import click

from etherws.cli import config_option
from etherws.cli.file_options import files_read
from etherws.cli.process.process_image import PACKET_SOCKETS
from etherws.cli.process.run_as import VARIABLE
from etherws.cli.process.staged_copies import StagedCopies
from etherws.errors import ListenError, SettingsError
from etherws.file_names import CREDENTIALS_FOLDER, use_copies
from etherws.kernel import packet_sockets, service_manager

#: Where systemd says which folder the unit may write to; it belongs to the unit's user (systemd.exec(5)).
OWNED = "RUNTIME_DIRECTORY"

#: The first port that needs no capability; net.ipv4.ip_unprivileged_port_start may lower it.
FIRST_FREE_PORT = 1024


@click.command(hidden=True)
@click.option("--open", "opens", is_flag=True)
@click.argument("role", type=click.Choice(["server", "client"]))
@click.pass_context
def stage(ctx: click.Context, role: str, opens: bool) -> None:
    """Prepare what a unit's etherws may not do itself. Only the units run it."""
    # journald takes the level from the number (sd-daemon(3)).
    logging.basicConfig(format="<4>%(message)s", level=logging.WARNING)
    assert ctx.parent is not None
    assert isinstance(ctx.parent.command, click.Group)
    command = ctx.parent.command.commands[role]
    # Root reads the configuration itself: the copy of it is what is to be made anew.
    use_copies(None)
    # Mistakes in the options are told by the command itself when it starts.
    options = command.make_context(
        role, [], ctx.parent, auto_envvar_prefix=f"ETHERWS_{role.upper()}", resilient_parsing=True
    )
    _copy(options)
    if opens:
        _open_packet_sockets(packet_sockets.SERVER_NEEDS if role == "server" else packet_sockets.CLIENT_NEEDS)
        if role == "server":
            _open_port(options.params)


def _copy(options: click.Context) -> None:
    """Copy the files. One that cannot be copied is a warning: etherws says itself what it cannot read. Raises
    SettingsError."""
    folder, owned = os.environ.get(VARIABLE), os.environ.get(OWNED)
    if not folder or not owned:
        raise SettingsError(f"{VARIABLE} and {OWNED} are not set; this command is for the units in contrib/")
    try:
        reader = os.stat(owned.partition(":")[0])
        # Credentials of systemd's are there for that user already.
        theirs = os.environ.get(CREDENTIALS_FOLDER) or "-"
        names = [name for name in files_read(options) if os.path.dirname(name) != theirs]
        copies = StagedCopies(folder, names, reader.st_uid, reader.st_gid)
        for problem in copies.update():
            _warn(problem)
        # Half of a configuration does not name all: a process that runs still needs the rest.
        if config_option.UNUSABLE not in options.meta:
            copies.remove_others()
    except OSError as exc:
        raise SettingsError(f"cannot copy files to {folder}: {exc.strerror}; remove it, or give it to root") from exc


def _open_packet_sockets(count: int) -> None:
    # Those of an earlier start are in the store as well: they would be one set more with each start.
    service_manager.drop(PACKET_SOCKETS)
    try:
        packet_sockets.reserve(count)
    except OSError as exc:
        _warn(f"own frames that come back to a bridge go unnoticed: no packet socket: {exc.strerror}")
        return
    service_manager.keep(PACKET_SOCKETS, *packet_sockets.descriptors())


def _open_port(options: dict[str, Any]) -> None:
    """Open the port that the options say, if that takes root, and if it is not open since an earlier start."""
    from etherws.server.kept_listener import NAME
    from etherws.server.listen import UNIX_PREFIX, listen

    address, port = options["address"], options["port"]
    if port is None:
        port = 443 if options["certfile"] else 80
    if not 0 < port < FIRST_FREE_PORT or (address or "").startswith(UNIX_PREFIX):
        return
    try:
        # It is to be open here until it is open there.
        with contextlib.closing(listen(address, port)) as sock:
            service_manager.keep(NAME, sock.fileno())
    except ListenError as exc:
        # What systemd itself has open is the one of an earlier start, or of the socket unit.
        if "(pid 1)" not in str(exc):
            _warn(str(exc))


def _warn(text: str) -> None:
    click.echo(f"<4>{text}", err=True)
