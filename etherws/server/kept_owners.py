"""What owners have used of their limits, and whom the operator keeps out, in the store: for the next process, if this
one ends in order.

After a crash the next process reads from the kernel what the ports of an owner have learned; the rest is lost. Read
next: owners.py, gate.py, kernel/store.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from time import monotonic
from typing import Any

from etherws.kernel.state_file import STATE_MAX, StateFile
from etherws.kernel.store import Store
from etherws.server.gate import Gate
from etherws.server.owners import Owners

log = logging.getLogger(__name__)

#: The names in the store.
NAME, GATE = "owners", "gate"

#: Bytes of all owners: one state file, but for what is around the list. That is room for some 40,000 addresses.
ROOM = STATE_MAX - 100

VERSION = 1

#: What is kept under each name, for the log.
_MEANS = {NAME: "what clients have used of their limits until now", GATE: "whom the operator has kept out until now"}


def restore(store: Store, gate: Gate) -> Owners:
    """The owners: what they have used goes on counting, as far as the last process has left it in the store. Whom that
    one has kept out, `gate` keeps out."""
    owners = Owners()
    _read(store, NAME, lambda values: owners.restore(values.get("owners"), monotonic()))
    _read(store, GATE, lambda values: gate.restore(values.get("kept out")))
    return owners


def keep(store: Store, owners: Owners, gate: Gate) -> None:
    """Leave it for the next process, which is about to come."""
    _write(store, NAME, lambda: {"owners": owners.to_values(monotonic(), ROOM)})
    if kept_out := gate.to_values():
        _write(store, GATE, lambda: {"kept out": kept_out})


def _read(store: Store, name: str, use: Callable[[dict[str, Any]], None]) -> None:
    for fd in store.take(name):
        try:
            values = StateFile(fd).read() or {}
            if values.get("version") == VERSION:
                use(values)
        except (ValueError, OSError) as exc:
            log.warning("%s cannot be read: %s", _MEANS[name], exc)
        os.close(fd)
        # It is not true any more as soon as clients are there.
        store.drop(name)


def _write(store: Store, name: str, make: Callable[[], dict[str, Any]]) -> None:
    try:
        file = StateFile()
        file.write({"version": VERSION, **make()})
        store.keep(name, file.fd)
    except (ValueError, OSError) as exc:
        log.warning("%s is lost with this process: %s", _MEANS[name], exc)
