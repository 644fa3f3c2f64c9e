"""How long a connection lives on which nothing is sent.

Read next: findings.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from etherws.check.findings import Finding
from etherws.tunnel.connection import Connection


def idle(connect: Callable[[], Connection], seconds: float) -> Iterator[Finding]:
    """What was found, up to so many seconds. `connect` makes a new connection, on which the server has agreed to the
    feature "check"; it raises ConnectError. This closes what it makes."""
    yield from ()
