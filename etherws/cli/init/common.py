"""What ``etherws init server`` and ``etherws init client`` have in common: options, questions, and where files go.

Read next: server.py, client.py; units.py, which has systemd start what was made.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from etherws.cli import offered
from etherws.cli.interface_options import bridge_option
from etherws.cli.sections import flag, option
from etherws.config.invitation import NAME, PREFIX
from etherws.errors import SettingsError
from etherws.file_names import absolute


class SetupName(click.ParamType[str]):
    """What a set-up is called."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name."""
        text = str(value)
        if PREFIX in text:
            # Other users may have seen it already: a command line is open to all.
            self.fail(
                "an invitation is a secret, and all users can read a command line: start without it, and paste it when"
                " asked; make a new one on the server by --renew",
                param,
                ctx,
            )
        if not NAME.fullmatch(text):
            self.fail(f"{text!r} is no name for a set-up; use letters, digits, - _ . and at most 64", param, ctx)
        return text


def common_options(role: str) -> list[click.Option]:
    """The options of both commands."""
    return [
        bridge_option(),
        option(
            "--device",
            metavar="NAME",
            help="Name the network interface.  [default: the first free ethwsN]",
            shell_complete=offered.taps,
        ),
        flag("--enable", help="Have systemd start it now, and at each boot; on a terminal it is asked for."),
        option(
            "--config-dir",
            type=click.Path(),
            default=f"/etc/etherws/{role}",
            metavar="DIR",
            help="Write the files to this folder.",
        ),
    ]


def ask(question: str, default: str | None = None) -> str | None:
    """The answer to a question on the terminal; None without a terminal, and for an empty answer. Raises
    SettingsError."""
    if sys.stdin is None or not sys.stdin.isatty():
        return None
    answer = str(click.prompt(question, default=default or "", show_default=bool(default), err=True)).strip()
    if PREFIX in answer:
        # Pasted a question too early. An error about a wrong name would have it once more.
        raise SettingsError(
            "this was not the question for the invitation, which is on the screen now: clear that, or make a new one on"
            " the server by --renew; then start again, and paste it when it is asked for"
        )
    return answer or None


def tell(text: str) -> None:
    """Say something to the user: standard output is for the invitation alone."""
    click.echo(text, err=True)


def file_of(folder: str, name: str) -> str:
    """Where the configuration of this name is."""
    return os.path.join(absolute("--config-dir", folder), f"{name}.toml")
