"""What owners have used of their limits, in the store: for the next process, if this one ends in order.

After a crash the next process reads from the kernel what the ports of an owner have learned; the rest is lost. Read
next: owners.py, kernel/store.py.
"""

from __future__ import annotations

import logging
import os
from time import monotonic

from etherws.kernel.state_file import STATE_MAX, StateFile
from etherws.kernel.store import Store
from etherws.server.owners import Owners

log = logging.getLogger(__name__)

#: The name in the store.
NAME = "owners"

#: Bytes of all of them: one state file, but for what is around the list. That is room for some 40,000 addresses.
ROOM = STATE_MAX - 100

VERSION = 1


def restore(store: Store) -> Owners:
    """The owners: what they have used goes on counting, as far as the last process has left it in the store."""
    owners = Owners()
    for fd in store.take(NAME):
        try:
            values = StateFile(fd).read() or {}
            if values.get("version") == VERSION:
                owners.restore(values.get("owners"), monotonic())
        except (ValueError, OSError) as exc:
            log.warning("what clients have used of their limits until now cannot be read: %s", exc)
        os.close(fd)
        # It is not true any more as soon as clients are there.
        store.drop(NAME)
    return owners


def keep(store: Store, owners: Owners) -> None:
    """Leave it for the next process, which is about to come."""
    try:
        file = StateFile()
        file.write({"version": VERSION, "owners": owners.to_values(monotonic(), ROOM)})
        store.keep(NAME, file.fd)
    except (ValueError, OSError) as exc:
        log.warning("what clients have used of their limits is lost with this process: %s", exc)
