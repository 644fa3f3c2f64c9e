"""When Python looks for garbage: what is no longer used but is held by a cycle of references. A policy for a process.

By itself Python looks through all objects whenever a quarter more have come: with a thousand clients no frame passes
for a tenth of a second. Clients that go leave no cycles (tests/server/test_tunnels.py). So Python looks at young
objects only, and at all of them once very much has come; and hardly at any while a process starts. Only processes of
etherws itself call begin() and settle(): a program in which a server is embedded has a policy of its own. Pure.
Source: Python's documentation, module gc.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from typing import Any

#: So many new objects make Python look at the young ones. After so many of these looks it also looks at those that
#: were left then. These are Python's own numbers of 3.10 to 3.12; 3.13 has 2,000, which would take three times as long.
YOUNG, MIDDLE = 700, 10

#: So many new objects make Python look while a process starts: nearly all of them are modules, classes and functions,
#: which stay. By Python's own number it looks hundreds of times, which takes an eighth of a start's processor time.
STARTING = 100_000

#: How often those are looked at until Python looks at all objects: never. The largest number that Python takes.
NEVER = 2**31 - 1

#: Blocks of memory that are new until all objects are looked at: some 100 MB. A thousand clients have fewer.
GROWTH = 1_000_000


class Policy:
    """Of this process."""

    def __init__(self, blocks: Callable[[], int] = sys.getallocatedblocks) -> None:
        """`blocks` returns how many blocks of memory Python has in use."""
        self._blocks = blocks
        self._settled = self._due = False
        #: From how many blocks on all objects are looked at.
        self._limit = 0

    def begin(self) -> None:
        """The process starts: what comes now is imported, and stays. A process that never settles goes on so."""
        gc.set_threshold(STARTING)

    def settle(self) -> None:
        """The start is over: what is there now stays, and is not looked at again. May be repeated."""
        self._search()
        if not self._settled:
            gc.callbacks.append(self._looked)
        self._settled = True
        gc.set_threshold(YOUNG, MIDDLE, NEVER)

    def spare_young(self) -> None:
        """Have objects that are young now not be looked at. Python counts how many more there are: who replaces many by
        as many new ones calls this now and then, or they are all looked at in one go, some day. Takes no time."""
        if self._settled:
            gc.freeze()

    def search_if_due(self) -> None:
        """Look at all objects if so much has come. It may take a tenth of a second."""
        if self._due:
            self._search()

    def _search(self) -> None:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._due, self._limit = False, self._blocks() + GROWTH

    def _looked(self, phase: str, about: Mapping[str, Any]) -> None:
        """Python has looked at objects, or is about to; in any thread. To look at more is not possible here."""
        if phase == "stop" and about["generation"] == 1 and self._blocks() > self._limit:
            self._due = True


_policy = Policy()
begin, settle = _policy.begin, _policy.settle
spare_young, search_if_due = _policy.spare_young, _policy.search_if_due
