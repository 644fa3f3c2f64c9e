"""The options of ``etherws check``: two of its own, and those of the client that say how to reach a server.

They are the client's very options, so a path is checked as the client would go it. Read next: options.py; check.py.
"""

from __future__ import annotations

import click

from etherws.cli.number_options import Wait
from etherws.cli.options import TIMING, client_sections
from etherws.cli.sections import Sections


def _of_client(heading: str, *names: str) -> list[click.Option]:
    """These options of the client, or all of those under the heading."""
    return [option for option in client_sections[heading] if not names or {*names} & {*option.opts}]


check_sections: Sections = {
    "Check": [
        click.Option(
            ["--json"], is_flag=True, help="Print one JSON document at the end.  [default: a line for each finding]"
        ),
        click.Option(
            ["--idle"],
            type=Wait(),
            is_flag=False,
            flag_value="5m",
            metavar="[=TIME]",
            help="Also find how long an idle connection lives, up to this time; without a time, five minutes."
            "  [default: leave it out]",
        ),
    ],
    "Connection": _of_client("Connection", "--connect-to", "--ipv4", "--ipv6", "--header", "--wire", "--congestion"),
    "TLS": _of_client("TLS"),
    "Log in": _of_client("Log in", "--token-file", "--user", "--password-file"),
    "Proxy": _of_client("Proxy"),
    "Interface": _of_client("Interface", "--mtu"),
    TIMING: _of_client(TIMING, "--connect-timeout"),
}
