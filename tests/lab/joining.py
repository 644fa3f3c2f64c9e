"""A client of a TLS server, and what it said."""

from __future__ import annotations

from typing import Any

from tests.lab.hosts import Host, Process
from tests.lab.pki import Authority


def last_line(process: Process) -> str:
    """What it said last, without the time."""
    return process.output.strip().splitlines()[-1].split(" ", 2)[-1]


def joining(host: Host, authority: Authority, *options: str, **more: Any) -> Process:
    """A client of it."""
    return host.etherws(
        "client",
        "--foreground",
        "wss://localhost/",
        "--cacert",
        str(authority.cert),
        "--device",
        "far%d",
        *options,
        **more,
    )
