"""The status of a server that is none, and of a client, as /status says them."""

from __future__ import annotations

from typing import Any

from etherws.counters import Totals
from tests.lab.subjects import FakeServer


def server_status(sessions: int = 3, parked: int = 1, **changes: Any) -> dict[str, Any]:
    """A server's; its sessions began 4,000 s ago."""
    subject = FakeServer(sessions, parked)
    subject.began -= 4000
    return {
        **subject.overview(),
        "sessions": list(subject.sessions()),
        "parked": list(subject.parked()),
        **changes,
    }


def client_status(*, connected: bool = True, **link: Any) -> dict[str, Any]:
    """A client's."""
    subject = FakeServer(1, 0)
    (session,) = subject.sessions()
    del session["identity"]
    session |= {"server": "wss://host:443", "proxy": None, "policy": None, "macs_more": 0, "device": "ethws0"}
    found = {
        "server": "wss://host:443",
        "proxy": None,
        "last_error": None,
        "last_error_at": None,
        "next_attempt": None,
        "attempts": 0,
        "reconnects": 0,
        **link,
    }
    overview = subject.overview()
    return {
        **{name: overview[name] for name in ("schema", "version", "pid", "started", "now", "device", "bridge")},
        "role": "client",
        "name": "lan",
        "state": "connected" if connected else "waiting",
        "totals": Totals().values(),
        "link": found,
        "sessions": [session] if connected else [],
        "parked": [],
    }
