"""The options of server and client for what is shown: the control socket, and --monitor.

Read next: options.py, which has them under a heading; monitoring.py, which checks them.
"""

from __future__ import annotations

import click

from etherws.cli.file_options import FileName, WrittenFile

monitor_options = [
    click.Option(
        ["--control"],
        type=WrittenFile(),
        metavar="FILE",
        help="Make the control socket here; '' makes none.  [default: /run/etherws/ROLE-DEVICE/control for root]",
    ),
    click.Option(
        ["--monitor"],
        metavar="ADDRESS:PORT",
        help="Serve status, metrics and the page here; a port alone is of 127.0.0.1.  [default: nowhere]",
    ),
    click.Option(
        ["--monitor-token-file"],
        type=FileName(),
        metavar="FILE",
        help="Let programs read there with a token that is a line of this file.  [default: none]",
    ),
]
