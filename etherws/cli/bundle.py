"""``etherws bundle``: one archive for a bug report.

This names the file, finds what runs, and prints what is in the archive; bundle/archive.py makes it.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from etherws.bundle import archive
from etherws.bundle.archive import Instance
from etherws.bundle.redaction import Redactor
from etherws.cli.sections import Command, Sections
from etherws.errors import printable

bundle_sections: Sections = {
    "Options": [
        click.Option(
            ["--out"],
            type=click.Path(),
            metavar="FILE",
            help="Write the archive to this new file.  [default: etherws-bundle-TIME.tar.gz here]",
        ),
        click.Option(
            ["--addresses"],
            is_flag=True,
            help="Leave addresses, hosts and names of clients in it.  [default: replace them]",
        ),
    ]
}

#: Seconds without an answer, and bytes of one.
_TIMEOUT, _ANSWER_MAX = 10.0, 32 << 20


@click.command("bundle", cls=Command, sections=bundle_sections)
@click.argument("name", required=False)
def bundle(name: str | None, out: str | None, addresses: bool) -> None:
    """Make one archive for a bug report, without secrets.

    It has what status, events and check say, versions, options, policy, settings, interfaces and the last lines of the
    log. Public addresses and names of clients and hosts are replaced. NAME is the server's or client's; without it, all
    that run here are asked.
    """
    began = time.strftime("%Y%m%d-%H%M%S")
    path = out or f"etherws-bundle-{began}.tar.gz"
    archive.check(path)
    found = [each for each in _instances() if name is None or each.name.partition("-")[2] == name or each.name == name]
    notes = [] if found else [f"Nothing that is called {printable(name)} runs here." if name else "Nothing runs here."]
    redactor = Redactor(addresses=addresses)
    made = archive.members(found, redactor, environ=os.environ, notes=notes)
    size = archive.write(path, made, f"etherws-bundle-{began}")
    for member in made:
        click.echo(f"{len(member.data):>9}  {member.name:<32} {member.about}")
    for line in (*notes, *archive.said(redactor)):
        click.echo(line)
    click.echo(f"Written to {path} ({size} bytes). Look into it before you send it: tar -xzf {path}")


def _instances() -> Iterator[Instance]:
    """The servers and clients that have a control socket where this user looks for it."""
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    for folder in ("/run/etherws", *([f"{own}/etherws"] if own and os.geteuid() != 0 else [])):
        for path in sorted(Path(folder).glob("*/control")):
            yield Instance(path.parent.name, lambda target, path=path: _get(str(path), target))  # type: ignore[misc]


def _get(path: str, target: str) -> Any:
    connection = http.client.HTTPConnection("localhost", timeout=_TIMEOUT)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.sock.settimeout(_TIMEOUT)
        connection.sock.connect(path)
        connection.request("GET", target)
        return json.loads(connection.getresponse().read(_ANSWER_MAX))
    except http.client.HTTPException as exc:
        raise OSError(f"{path} does not answer by HTTP: {exc!r}") from exc
    finally:
        connection.close()
