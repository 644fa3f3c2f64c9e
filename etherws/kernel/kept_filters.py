"""The filters of ports that another process had: known as what they are in the kernel, and put in again, all together.

What the kernel has in force is what that process has put in, unless others have changed it since. So the tables are
made anew, with the addresses that the old ones have learned. Frames see the old rules or the new ones, and none passes
before: only a session lets frames pass. Read next: port_filter.py; server/port_state.py, which says what was in force.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from etherws.errors import DeviceError, some_of
from etherws.kernel import address_sets
from etherws.kernel.filter_state import Applied, FilterState
from etherws.kernel.filter_table import table_for
from etherws.kernel.link_changes import Touched
from etherws.kernel.nfnetlink import transact
from etherws.kernel.port_filter import PortFilter
from etherws.kernel.rules import ADDRESSES, Rules, table_name

log = logging.getLogger(__name__)

#: Each stands for one byte of a name in requests. No interface has them in its name (net/core/dev.c, dev_valid_name).
PLACE, OTHER = ":", "/"

#: Bytes of requests in one transaction. The kernel's send buffer holds 200 KiB, of which some are not for the data. To
#: replace tables takes the kernel some 20 ms, however many they are.
BATCH_BYTES = 100_000


@dataclass(frozen=True)
class KeptFilter:
    """One port's: the filter, the name that its interface had when the rules were put in, and these rules. `in_use`:
    its client has it still, and may come back; else the rules are those of the last client."""

    filter: PortFilter
    name: str
    rules: Rules
    in_use: bool


def take_over(kept: Sequence[KeptFilter]) -> list[PortFilter]:
    """Have the filters know what is in force. Return those whose rules could not be put in again, or are not all in
    force: no frame may pass there before they are."""
    waiting: list[tuple[KeptFilter, list[bytes]]] = []
    for one in kept:
        try:
            name = one.filter.place.name()
        except DeviceError:
            # It is gone since it was looked at.
            continue
        one.filter.settings.isolated = one.rules.isolated
        one.filter.settings.has_vlans = bool(one.rules.port_vlans)
        # In another network namespace nothing is in force. Its next client finds out what can be.
        if name:
            one.filter.name, one.filter.needed = name, one.rules
            one.filter.applied, one.filter.state = Applied(name, one.rules), FilterState.OUTDATED
            if one.in_use:
                waiting.append((one, _requests(name, one)))
    lost: list[PortFilter] = []
    for batch in _batches(waiting):
        if _install(batch):
            lost += [one.filter for one, _ in batch if not _in_force(one)]
        else:
            lost += [one.filter for one, requests in batch if not (_install([(one, requests)]) and _in_force(one))]
    return lost


def _requests(name: str, kept: KeptFilter) -> list[bytes]:
    """The requests that put in the rules again; with the addresses of the old table, which may have an older name."""
    if not kept.rules.filters:
        return []
    if template := _template(kept.rules, len(name.encode())):
        requests = _named(template, name)
    else:
        requests = table_for(name, kept.rules).replacement()
    if kept.rules.learns:
        try:
            addresses = next(filter(None, map(_learned, dict.fromkeys((name, kept.name)))), {})
        except OSError as exc:
            log.warning("cannot read which addresses the client of %s has used: %s", name, exc.strerror)
            addresses = {}
        requests += address_sets.requests(table_name(name), ADDRESSES, addresses)
    return requests


@functools.lru_cache(maxsize=16)
def _template(rules: Rules, length: int) -> list[bytes] | None:
    """The requests for an interface whose name has so many bytes, with PLACE for each; None if they have such bytes
    elsewhere, too. To make requests takes up to a millisecond, and many ports have the same rules."""
    found, other = (table_for(place * length, rules).replacement() for place in (PLACE, OTHER))
    return found if _named(found, OTHER * length) == other else None


def _named(template: Iterable[bytes], name: str) -> list[bytes]:
    raw = name.encode()
    return [request.replace(PLACE.encode() * len(raw), raw) for request in template]


def _learned(name: str) -> dict[bytes, float]:
    return address_sets.addresses_in(table_name(name), ADDRESSES)


def _batches(waiting: Iterable[tuple[KeptFilter, list[bytes]]]) -> Iterator[list[tuple[KeptFilter, list[bytes]]]]:
    batch: list[tuple[KeptFilter, list[bytes]]] = []
    size = 0
    for one, requests in waiting:
        more = sum(map(len, requests))
        if batch and size + more > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append((one, requests))
        size += more
    if batch:
        yield batch


def _install(batch: Sequence[tuple[KeptFilter, list[bytes]]]) -> bool:
    """Put in the rules of these ports; return whether they are in."""
    for one, _ in batch:
        # Frames of its client have passed. For the case of a failure, that is known before.
        one.filter.state = FilterState.USED
    try:
        transact([request for _, requests in batch for request in requests])
    except OSError as exc:
        names = some_of([one.filter.name for one, _ in batch], 3)
        log.debug("cannot put in the rules of %s again: %s", names, exc.strerror)
        return False
    return True


def _in_force(kept: KeptFilter) -> bool:
    """Whether all is in force at this port, whose table is in."""
    if change := kept.filter.changed(Touched.NAME | Touched.PORT):
        log.warning("%s", change)
        return False
    if kept.name != kept.filter.name:
        try:
            kept.filter.place.remove_table(kept.name)
        except DeviceError as exc:
            log.error("%s", exc)
    return True
