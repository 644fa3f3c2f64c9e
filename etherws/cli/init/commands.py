"""``etherws init``: the group of its two commands. Read next: server.py, client.py."""

from __future__ import annotations

from etherws.cli.examples import init_notes
from etherws.cli.init.client import init_client
from etherws.cli.init.server import init_server
from etherws.cli.sections import Group

init = Group(
    name="init",
    notes=init_notes,
    help="Set up a server or a client.\n\nA server gets a configuration, a certificate and a token. A client needs only"
    " the line that this prints there.",
    commands=[init_server, init_client],
)
