"""``etherws init client``: a client's configuration, from the line that ``etherws init server`` has printed.

The line is a secret: it is asked for, or read from standard input or a file, and never from the command line. Before
anything is written, the server is tried once: a line from another server, or an old one, is noticed here. Read next:
config/invitation.py, the line; config/texts.py, the file.
"""

from __future__ import annotations

import os
import sys
import time

import click

from etherws.cli import offered
from etherws.cli.examples import init_client_notes
from etherws.cli.init import units
from etherws.cli.init.common import SetupName, ask, common_options, file_of, tell
from etherws.cli.sections import Command, flag, option
from etherws.client.uris import split_uri
from etherws.config import texts
from etherws.config.invitation import LINE_MAX, Invitation, parse
from etherws.config.new_files import NewFiles
from etherws.errors import ConnectError, NotAdmitted, OtherKey, SettingsError, printable
from etherws.settings import ClientSettings
from etherws.small_files import open_secret, read_file

client_sections = {
    "Options": [
        option(
            "--invitation",
            type=click.Path(),
            metavar="FILE",
            help="Read the line from this file.  [default: asked for, or read from standard input]",
        ),
        flag("--replace", help="Write a set-up of this name anew."),
        flag("--no-try", help="Write the set-up without a try to reach the server."),
        *common_options("client"),
    ]
}


@click.command("client", cls=Command, sections=client_sections, notes=init_client_notes)
@click.argument("name", type=SetupName(), required=False, metavar="[NAME]", shell_complete=offered.set_ups)
def init_client(
    name: str | None,
    invitation: str | None,
    replace: bool,
    no_try: bool,
    bridge: str | None,
    device: str | None,
    enable: bool,
    config_dir: str,
) -> None:
    """Set up a client, by the line that etherws init server has printed.

    It asks for the line. NAME is by default what the server's set-up is called.
    """
    # Who gives options is asked for the line alone: a secret that is pasted must not meet another question, which
    # would show it.
    asks = not (enable or bridge or device or invitation)
    enable = units.wanted(enable)
    if asks:
        bridge = ask("Bridge that joins the far LAN; empty for none")
    # A mistake is found before the secret is asked for.
    ClientSettings(device=device or ClientSettings.device, bridge=bridge)
    invited = parse(_line(invitation), time.time())
    split_uri(invited.uri)
    name = name or invited.name
    path = file_of(config_dir, name)
    if os.path.lexists(path) and not replace:
        raise SettingsError(
            f"{path} is there already; give another name, as in etherws init client {name}2, or --replace"
        )
    tell(f"The server is {printable(invited.uri)}; it knows this client as {printable(invited.client)}.")
    if not no_try:
        _try(invited)
    secret = f"{name}.token"
    values: dict[str, str | int | None] = {
        "uri": invited.uri,
        "pinnedpubkey": invited.pin or None,
        "token-file": secret,
        "bridge": bridge,
        "device": device,
    }
    with NewFiles() as files:
        content = f"{invited.token}\n".encode()
        files.write(os.path.join(os.path.dirname(path), secret), content, 0o600, replace=replace)
        files.write(path, texts.client(name, path, values).encode(), 0o640, replace=replace)
    if enable:
        units.enable("client", name, restart=replace)
    else:
        tell(f"{path} is written. Start the client: etherws client --config {path}")
        tell(f"or by systemd, also at each boot: {units.later('client', name)}")


def _line(path: str | None) -> str:
    """The invitation as it was given. Raises SettingsError."""
    if path is not None:
        try:
            found = read_file(path, LINE_MAX + 1).decode(errors="replace")
        except OSError as exc:
            raise SettingsError(f"cannot read --invitation {path}: {exc.strerror}") from exc
        if words := open_secret(path):
            # It can be used as long as the token of this client can.
            tell(f"warning: {printable(words)}; others may have the line: make a new one on the server by --renew")
        return found
    if sys.stdin is None:
        raise SettingsError("there is no standard input for the invitation; give --invitation FILE")
    if sys.stdin.isatty():
        return str(click.prompt("Invitation (it is not shown)", hide_input=True, err=True))
    return sys.stdin.buffer.read(LINE_MAX + 1).decode(errors="replace")


def _try(invited: Invitation) -> None:
    """Reach the server once. Raises SettingsError if it is another server, or does not know the token; a server that
    cannot be reached now is only said."""
    from etherws.check.trial import trial

    old = "make a new line on the server: etherws init server --renew"
    try:
        trial(invited.uri, invited.pin, invited.token)
    except OtherKey as exc:
        raise SettingsError(
            f"the server there has another key than the invitation says: the line comes from another server, or"
            f" the server was set up anew; {old}. Nothing was written"
        ) from exc
    except NotAdmitted as exc:
        raise SettingsError(
            f"the server does not know this client's token: the line is old, or comes from another server; {old}."
            " Nothing was written"
        ) from exc
    except ConnectError as exc:
        tell(f"warning: the server cannot be reached now, and the client will go on trying: {printable(str(exc))}")
    else:
        tell("The server lets this client in.")
