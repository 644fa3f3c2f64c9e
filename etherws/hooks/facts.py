"""What a program is told when it is run: why, for which interface and which peer, as its environment.

Pure. Nothing of etherws's own environment is passed on. Words of a peer, such as its name, are hostile: they are in
variables only, never in a command line, and without characters that control a terminal or begin a line. Read next:
queue.py, which runs programs; docs/interface.rst, which lists the variables.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from etherws.errors import printable

#: Where programs look for other programs: as of a service of systemd's (systemd.exec(5)).
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Why programs are run.
CONNECTED, LOST, POLICY, LEFT, STOPPED = "connected", "lost", "policy", "left", "stopped"

UP, DOWN, CHANGE = "up", "down", "change"


class Facts(NamedTuple):
    """What one run is about. `peer` is the server's URI, or the client's address; `identity` is the client's name."""

    role: str
    device: str
    bridge: str = ""
    peer: str = ""
    identity: str = ""
    addresses: tuple[str, ...] = ()


def environment(hook: str, reason: str, facts: Facts) -> dict[bytes, bytes]:
    """The whole environment of a program. `hook` is UP, DOWN or CHANGE."""
    values = {
        "HOOK": hook,
        "REASON": reason,
        "ROLE": facts.role,
        "DEVICE": facts.device,
        "BRIDGE": facts.bridge,
        "PEER": facts.peer,
        "IDENTITY": facts.identity,
    }
    found = {f"ETHERWS_{name}": printable(value) for name, value in values.items()}
    found["ETHERWS_ADDRESSES"] = " ".join(facts.addresses)
    found["PATH"] = PATH
    return {os.fsencode(name): value.encode("utf-8", "replace") for name, value in found.items()}
