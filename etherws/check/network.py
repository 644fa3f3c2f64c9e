"""The path to a server, step by step, as ``etherws client`` would go it. It joins no LAN.

Read next: findings.py; client/attempt.py, which is one attempt of the client's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from etherws.check.findings import Finding
from etherws.client.credentials import Credentials
from etherws.client.proxy_choice import ProxyChoice
from etherws.client.uris import ServerUri
from etherws.settings import Trust


@dataclass(frozen=True)
class Target:
    """What to check: a server, and how the client would reach it. `timeout` is in seconds, for each step. With `idle`,
    also how long an idle connection lives, up to so many seconds."""

    uri: ServerUri
    proxy_choice: ProxyChoice
    trust: Trust
    credentials: Credentials
    headers: list[tuple[str, str]]
    timeout: float = 10.0
    idle: float | None = None


def network(target: Target) -> Iterator[Finding]:
    """What was found on the way to the server."""
    yield from ()
