"""The options of server and client about the interface: its name, its bridge, its addresses, and its programs.

Read next: options.py, where the other options are; tap_settings.py and settings.py, which check the values.
"""

from __future__ import annotations

import click

from etherws.cli import offered
from etherws.cli.file_options import Program
from etherws.cli.sections import flag, option
from etherws.cli.user_option import UserName


def _program(name: str, help: str) -> click.Option:
    # Not a file that is read: a copy of it for another user would be another program.
    return option(name, help=f"{help}  [default: none]", metavar="PROGRAM", type=Program())


def bridge_option() -> click.Option:
    """--bridge, which etherws init has, too."""
    return option(
        "--bridge",
        metavar="NAME",
        help="Put the interface into this bridge, made if needed.  [default: none]",
        shell_complete=offered.bridges,
    )


#: In the order in which --help shows them.
interface_options = [
    option(
        "--device",
        default="ethws%d",
        metavar="NAME",
        help="Name the network interface; %d is the first free number.",
        shell_complete=offered.taps,
    ),
    bridge_option(),
    option(
        "--vlan",
        type=int,
        metavar="N",
        help="Have the bridge, which filters VLANs, put untagged frames into this one.  [default: the bridge's]",
    ),
    option("--mtu", type=int, metavar="BYTES", help="Set the interface's MTU.  [default: the kernel's, 1500]"),
    option(
        "--mac",
        metavar="ADDRESS",
        help="Give the interface this Ethernet address.  [default: one of its own that stays]",
    ),
    option(
        "--inet",
        multiple=True,
        metavar="ADDRESS/PREFIX",
        help="Give the interface, or its --bridge, this IP address. Repeatable.  [default: none]",
    ),
    _program("--up", "Run this program when the link is up, on a server for each client."),
    _program("--down", "Run this program at the end of what --up began."),
    _program("--change", "Run this program when the link is lost, or there again, or the policy has changed."),
    option(
        "--hook-user",
        type=UserName(),
        metavar="USER[:GROUP]",
        help="Run these programs as this user.  [default: as etherws]",
    ),
    flag("--hook-net-admin", help="Let these programs change the network: CAP_NET_ADMIN.  [default: no capability]"),
    flag("--accept-ra", help="Let the far LAN's routers configure this machine's IPv6.  [default: they cannot]"),
]
