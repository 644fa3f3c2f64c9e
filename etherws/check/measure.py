"""A session that carries no LAN's frames: how fast is the path, how long is the round trip, and what passes?

Read next: findings.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from etherws.check.findings import Finding
from etherws.tunnel.connection import Connection


def measure(connection: Connection) -> Iterator[Finding]:
    """What was found on `connection`, on which the server has agreed to the feature "check". The caller closes it.

    Raises ConnectionClosed or ProtocolError if it ends early."""
    yield from ()
