"""Commands for who administers a server: ``etherws passwd`` and ``etherws check-policy``. Part of commands.py.

What they do is in access/passwd.py and access/policy.py.
"""

from __future__ import annotations

import sys

import click

from etherws.errors import SettingsError, printable


@click.command("passwd")
@click.argument("file", type=click.Path(dir_okay=False))
@click.argument("name")
@click.option("--token", is_flag=True, help="Make a token and print it, instead of setting a password.")
@click.option("--delete", is_flag=True, help="Remove all of the name's entries.")
@click.option("--cost", type=int, default=10, show_default=True, help="Of bcrypt, 4 to 15; one more doubles its work.")
def passwd(file: str, name: str, token: bool, delete: bool, cost: int) -> None:
    """Add NAME to a file of passwords (--htpasswd) or tokens (--token-file), or change its password.

    The password is asked for; without a terminal it is the first line of standard input.
    """
    from etherws.access import passwd as editing

    if token and delete:
        raise click.UsageError("--token makes one and --delete removes all; choose one of them")
    if delete:
        if not editing.remove(file, name):
            raise SettingsError(f"{file}: has no entry of this name; check the name")
        click.echo(f"{name} is deleted from {file}")
    elif token:
        click.echo(editing.add_token(file, name))
        click.echo("This token is shown only now; the file has its hash.", err=True)
    else:
        new = editing.set_password(file, name, _new_password(), cost)
        click.echo(f"{name} is added to {file}" if new else f"{name} has a new password in {file}")


def _new_password() -> str:
    """From the terminal, twice and unseen, or the first line of standard input."""
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt="Again", err=True))
    # Far more than a password may have, so that one that is too long is found to be.
    line = sys.stdin.buffer.readline(4096).removesuffix(b"\n").removesuffix(b"\r")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise SettingsError("the password is no UTF-8; choose another") from None


@click.command("check-policy")
@click.argument("file", metavar="FILE")
def check_policy(file: str) -> None:
    """Check a policy file, and say what applies to whom."""
    from etherws.access import policy

    found = policy.load(file)
    for name, profile in found.clients.items():
        click.echo(f"{printable(name)}: {profile.summary()}")
    click.echo(f"everyone{' else' if found.clients else ''}: {found.default.summary()}")
