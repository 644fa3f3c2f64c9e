"""The ways to cut the clients of a fleet off from their server, by name in CUTS: for cuts.py and soak.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.fleet import OUTER, Client, Fleet
from bench.lab import VETH

#: Seconds of an outage that is ended by us, not by the client.
OUTAGE = 5.0


@dataclass(frozen=True)
class Cut:
    """A way to cut off: either each client by `start`, or all clients by `all_at_once`, which returns when it began.

    If `restore` is given, it ends the outage after `outage` seconds. With `proxied`, the fleet needs its HAProxy.
    """

    start: Callable[[Client], None] | None = None
    restore: Callable[[Client], None] | None = None
    outage: float = 0.0
    all_at_once: Callable[[Fleet], float] | None = None
    proxied: bool = False


def _reset(client: Client) -> None:
    port = client.connection()
    # The rules also see the RST that they make, and must let it pass.
    verdict = "tcp flags & rst == 0 reject with tcp reset"
    client.filter(f"tcp sport {port} {verdict}", f"tcp dport {port} {verdict}")


def _silence(*, up: bool, down: bool) -> Callable[[Client], None]:
    """Drop the packets of this connection only, like a firewall that has forgotten it. A new connection works."""

    def start(client: Client) -> None:
        port = client.connection()
        client.filter(f"tcp sport {port} drop" if up else "", f"tcp dport {port} drop" if down else "")

    return start


def _change_address(client: Client) -> None:
    """Change the client's address to the other one of two, as with another DHCP lease."""
    old = client.address
    host = int(old.rpartition(".")[2])
    client.address = f"{OUTER}{host + 100 if host < 100 else host - 100}"
    client.namespace.ip("addr", "del", f"{old}/24", "dev", VETH)
    client.namespace.ip("addr", "add", f"{client.address}/24", "dev", VETH)


def _kill_client(client: Client) -> None:
    client.kill()


def _kill_server(fleet: Fleet) -> float:
    fleet.server.process.kill()
    begun = time.monotonic()
    fleet.server.start()
    return begun


def _restart_server(fleet: Fleet) -> float:
    begun = time.monotonic()
    fleet.server.process.stop()
    fleet.server.start()
    return begun


def _restart_proxy(fleet: Fleet) -> float:
    begun = time.monotonic()
    fleet.proxy.stop()
    fleet.start_proxy()
    return begun


def _set(state: str) -> Callable[[Client], None]:
    def change(client: Client) -> None:
        client.namespace.ip("link", "set", VETH, state)

    return change


CUTS = {
    "reset": Cut(_reset),
    "silent": Cut(_silence(up=True, down=True)),
    "silent-up": Cut(_silence(up=True, down=False)),
    "silent-down": Cut(_silence(up=False, down=True)),
    "path": Cut(lambda client: client.filter("drop", "drop"), lambda client: client.filter(), OUTAGE),
    "address": Cut(_change_address),
    "interface": Cut(_set("down"), _set("up"), OUTAGE),
    "client-killed": Cut(_kill_client),
    "server-killed": Cut(all_at_once=_kill_server),
    "server-restarted": Cut(all_at_once=_restart_server),
    "proxy-restarted": Cut(all_at_once=_restart_proxy, proxied=True),
}
