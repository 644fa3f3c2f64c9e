"""Ethernet addresses that stay: the same after each restart, and another one on each machine and for each link.

The kernel gives a new TAP a random address. A machine that had talked to the one before would go on sending there for
half a minute. So an address is made of what tells this machine and this link from others; the first interface's is kept
in a file as well, so that it stays when a card is added. The file says on which machine it was made: a cloned machine
makes its own. Read next: machine.py, state_folder.py; tunnel/interface.py, which asks for addresses.
"""

from __future__ import annotations

import hashlib
import json
import logging

from etherws.kernel import machine
from etherws.kernel.state_folder import StateFolder
from etherws.values import ethernet

log = logging.getLogger(__name__)

#: The first byte of an interface's address: locally administered, one machine's (IEEE 802, section 8.4), and the
#: highest there is. A bridge without an address of its own takes the lowest one of its ports'. If that were ours, the
#: bridge would change its address when somebody puts the interface in.
PORT = 0xFE

#: The first byte of the address of a bridge that etherws makes.
BRIDGE = 0x02


class Addresses:
    """Those of one server or client."""

    def __init__(self, role: str, link: str, given: str | None, folder: StateFolder) -> None:
        """`role` is "server" or "client", `link` tells this link from others of the machine: where the server listens,
        or which one the client connects to. `given` is the address of --mac."""
        self._role, self._link, self._given, self._folder = role, link, given, folder
        self._machine: list[str] = []
        #: By name, so that a file is read once.
        self._kept: dict[str, str] = {}

    def first(self, name: str, *, persistent: bool = False) -> str | None:
        """The address of the interface of this name that exists from start to stop; None leaves it as it is, which
        holds for a `persistent` one unless --mac is given."""
        return self._given or (None if persistent else self._keep(name, PORT))

    def further(self, name: str, *, persistent: bool = False) -> str | None:
        """As first(), for each other interface of a server."""
        return None if persistent else self._derive(self._identities()[0], name, PORT)

    def first_bridge(self, name: str) -> str:
        """The address of the bridge of this name that etherws makes for its first interface."""
        return self._given or self._keep(name, BRIDGE)

    def further_bridge(self, name: str) -> str:
        """The address of any other bridge that etherws makes."""
        return self._derive(self._identities()[0], name, BRIDGE)

    def _identities(self) -> list[str]:
        self._machine = self._machine or machine.identities()
        return self._machine

    def _keep(self, name: str, first_byte: int) -> str:
        """The address that is kept; else the derived one, which is kept from now on."""
        if name not in self._kept:
            self._kept[name] = self._find(name, first_byte)
        return self._kept[name]

    def _find(self, name: str, first_byte: int) -> str:
        file = f"{self._role}-{name}.json"
        kept = self._folder.read(file)
        if kept is not None:
            if kept.get("made on") in {self._digest(each, name) for each in self._identities()}:
                try:
                    return ethernet(str(kept.get("address")))
                except ValueError as exc:
                    log.warning("%s is not used: its address %s", file, exc)
            else:
                log.info(
                    "%s gets an address of its own: %s was made on another machine, for another link, or in a container"
                    " that was new",
                    name,
                    file,
                )
        best = self._identities()[0]
        address = self._derive(best, name, first_byte)
        self._folder.write(file, {"address": address, "made on": self._digest(best, name)})
        return address

    def _digest(self, identity: str, name: str) -> str:
        return self._hash("digest", identity, name).hex()

    def _derive(self, identity: str, name: str, first_byte: int) -> str:
        return bytes([first_byte, *self._hash("address", identity, name)[:5]]).hex(":")

    def _hash(self, purpose: str, identity: str, name: str) -> bytes:
        # The machine's ID itself is nobody's business: machine-id(5).
        return hashlib.sha256(
            json.dumps(["etherws", purpose, identity, self._role, name, self._link]).encode()
        ).digest()
