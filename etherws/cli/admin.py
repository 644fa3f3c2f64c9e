"""The command for a server's administrator: ``etherws passwd``.

commands.py adds it to ``etherws``. It only prints; the work is in access/passwd.py.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator

import click

from etherws.cli.examples import passwd_notes
from etherws.cli.sections import Command, Sections
from etherws.errors import SettingsError

passwd_sections: Sections = {
    "Options": [
        click.Option(
            ["--token"], is_flag=True, show_default=True, help="Make a token and print it.  [default: set a password]"
        ),
        click.Option(
            ["--out"],
            type=click.Path(),
            metavar="FILE",
            show_default=True,
            help="Write the token to this new file, which only you can read.  [default: print it]",
        ),
        click.Option(["--delete"], is_flag=True, show_default=True, help="Delete all entries of NAME."),
        click.Option(
            ["--cost"],
            type=int,
            metavar="NUMBER",
            default=10,
            show_default=True,
            help="Make each check of a password so costly for bcrypt, 4 to 15; one more doubles the work.",
        ),
    ]
}


@click.command("passwd", cls=Command, sections=passwd_sections, notes=passwd_notes)
@click.argument("file", type=click.Path(dir_okay=False))
@click.argument("name")
def passwd(file: str, name: str, token: bool, out: str | None, delete: bool, cost: int) -> None:
    """Add NAME to a file of passwords or tokens, or change it.

    FILE is what etherws server --htpasswd FILE or --token-file FILE reads.

    Asks for the password on the terminal; without one, reads the first line of standard input.
    """
    from etherws.access import passwd as files

    if token and delete:
        raise click.UsageError("--token makes an entry and --delete deletes all; use only one of them")
    if out is not None and not token:
        raise click.UsageError("--out is for a token; give --token as well")
    if delete:
        if not files.remove(file, name):
            raise SettingsError(f"{file}: has no entry for this name; check the name")
        click.echo(f"{name} is deleted from {file}")
    elif token:
        if out is not None:
            with new_file(out) as write:
                files.add_token(file, name, write)
            click.echo(f"{name} has a new token in {file}; the token itself is in {out}")
            return
        files.add_token(file, name, print_secret)
        click.echo("This token is shown only now; the file has only its hash.", err=True)
    else:
        new = files.set_password(file, name, _new_password(), cost)
        click.echo(f"{name} is added to {file}" if new else f"{name} has a new password in {file}")


def print_secret(token: str) -> None:
    """Print a token, or a line that has one. Raises SettingsError if it cannot be written."""
    if sys.stdout is None:
        raise SettingsError("there is no standard output for the token; give --out FILE")
    try:
        click.echo(token)
    except OSError as exc:
        # What is left in the buffer would fail again at the end of the interpreter, whose status is then 120.
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())
        raise SettingsError(f"cannot write the token to standard output: {exc.strerror}; nothing was changed") from exc
    with contextlib.suppress(OSError):
        found = os.fstat(sys.stdout.fileno())
        if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
            click.echo("warning: others can read the file that the secret was written to; use --out FILE", err=True)


@contextlib.contextmanager
def new_file(path: str) -> Iterator[Callable[[str], None]]:
    """A function that writes a line to a new file, which only its owner can read. If the block fails, the file is
    removed. Raises SettingsError."""

    def write(line: str) -> None:
        try:
            file.write(f"{line}\n".encode())
            os.fsync(file.fileno())
        except OSError as exc:
            raise SettingsError(f"cannot write --out {path}: {exc.strerror}; nothing was changed") from exc

    try:
        # With O_EXCL a link is not followed either.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise SettingsError(f"--out {path} exists already; name a new file") from None
    except OSError as exc:
        raise SettingsError(f"cannot write --out {path}: {exc.strerror}") from exc
    with open(descriptor, "wb", buffering=0) as file:
        try:
            yield write
        except BaseException:
            os.unlink(path)
            raise


def _new_password() -> str:
    """The password from the terminal, asked for twice and not shown, or from the first line of standard input."""
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt="Again", err=True))
    # More than a password may have, so that set_password() notices one that is too long.
    line = sys.stdin.buffer.readline(4096).removesuffix(b"\n").removesuffix(b"\r")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise SettingsError("the password is not UTF-8; choose another") from None
