"""``etherws completion SHELL``: print the script by which bash, zsh or fish complete commands and options.

The shell then asks etherws itself at each Tab, so nothing here knows an option. The work is click's. A package installs
the same scripts where the shells look for them (docs/manual.py). Read next: click.shell_completion.
"""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from etherws.cli.examples import completion_notes
from etherws.cli.sections import Command

#: Where a package puts the script of each shell, below ``share``.
PLACES = {
    "bash": "bash-completion/completions/etherws",
    "zsh": "zsh/site-functions/_etherws",
    "fish": "fish/vendor_completions.d/etherws.fish",
}


def script(shell: str) -> str:
    """The script for a shell of PLACES."""
    kind = get_completion_class(shell)
    assert kind is not None
    # The script asks etherws when it runs, so any command will do here. BashComplete's own source() would start a bash
    # to ask for its version; all since 4.4 (of 2016) can use it.
    made = kind(click.Command("etherws"), {}, "etherws", "_ETHERWS_COMPLETE")
    return ShellComplete.source(made).strip() + "\n"


@click.command("completion", cls=Command, sections={"Options": []}, notes=completion_notes)
@click.argument("shell", type=click.Choice([*PLACES]))
def completion(shell: str) -> None:
    """Print a shell's script that completes at Tab."""
    click.echo(script(shell), nl=False)
