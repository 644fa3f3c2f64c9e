"""``etherws bundle``: one archive for a bug report.

This names the file, finds what runs, and prints what is in the archive; bundle/archive.py makes it.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from etherws.cli.control_commands import running
from etherws.cli.sections import Command, Sections
from etherws.errors import EtherwsError

if TYPE_CHECKING:
    from etherws.bundle.archive import Instance

bundle_sections: Sections = {
    "Options": [
        click.Option(
            ["--out"],
            type=click.Path(),
            metavar="FILE",
            help="Write the archive to this new file.  [default: named by the time]",
        ),
        click.Option(
            ["--addresses"],
            is_flag=True,
            help="Leave addresses, hosts and names of clients in it.  [default: replace them]",
        ),
    ]
}


@click.command("bundle", cls=Command, sections=bundle_sections)
@click.argument("name", required=False, shell_complete=running)
def bundle(name: str | None, out: str | None, addresses: bool) -> None:
    """Make one archive for a bug report, without secrets.

    It has what status, events and check say, versions, options, policy, settings, interfaces and the last lines of the
    log. Public addresses and names of clients and hosts are replaced. NAME is the server's or client's; without it, all
    that run here are asked.
    """
    from etherws.bundle import archive
    from etherws.bundle.redaction import Redactor

    began = time.strftime("%Y%m%d-%H%M%S")
    path = out or f"etherws-bundle-{began}.tar.gz"
    archive.check(path)
    found, notes = _running(name)
    redactor = Redactor(addresses=addresses)
    made = archive.members(found, redactor, environ=os.environ, notes=notes)
    size = archive.write(path, made, f"etherws-bundle-{began}")
    for member in made:
        click.echo(f"{len(member.data):>9}  {member.name:<32} {member.about}")
    for line in (*notes, *archive.said(redactor)):
        click.echo(line)
    click.echo(f"Written to {path} ({size} bytes). Look into it before you send it: tar -xzf {path}")


def _running(name: str | None) -> tuple[list[Instance], list[str]]:
    """Those that are meant, and what is to be said if there are none."""
    from etherws.bundle.archive import Instance
    from etherws.cli.operate import instances

    try:
        found = instances.all_instances()
        meant = instances.matching(found, name) if name else found
        notes = [] if meant else [instances.nothing_runs(name)]
    except EtherwsError as exc:
        # The rest is of use all the same.
        meant, notes = [], [str(exc)]
    return [Instance(each.name, each.get) for each in meant], notes
