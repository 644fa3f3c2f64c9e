"""For shells: what the options offer at Tab that name something of this machine.

Only reads files; whatever cannot be read is not offered. Read next: completion.py; control_commands.py, which offers
what runs. Source: the kernel's Documentation/ABI/testing/sysfs-class-net, and tcp(7).
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

import click

#: Where the kernel has a folder for each interface of this network namespace.
INTERFACES = "/sys/class/net"

#: The kernel's list of congestion controls, on one line.
CONGESTION = "/proc/sys/net/ipv4/tcp_available_congestion_control"


def bridges(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The bridges."""
    return _having("bridge", incomplete)


def taps(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The TAPs and TUNs that are there."""
    return _having("tun_flags", incomplete)


def congestion_controls(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The congestion controls that are loaded, and the word for etherws's own choice."""
    try:
        names = Path(CONGESTION).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        names = []
    return [name for name in ["auto", *names] if name.startswith(incomplete)]


def set_ups(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The names of what is set up in the folder of --config-dir."""
    # Only here: each start would load it.
    from etherws.config.invitation import NAME

    try:
        names = sorted(os.listdir(ctx.params.get("config_dir") or ""))
    except OSError:
        return []
    found = [name.removesuffix(".toml") for name in names if name.endswith(".toml")]
    # Other names are none of etherws's, and could control the terminal.
    return [name for name in found if name.startswith(incomplete) and NAME.fullmatch(name)]


def _having(name: str, incomplete: str) -> list[str]:
    """The interfaces with this file or folder."""
    paths = glob.glob(f"{glob.escape(INTERFACES)}/*/{name}")
    return sorted(found for path in paths if (found := Path(path).parent.name).startswith(incomplete))
