"""The addresses in an nf_tables set that rules add to: read, and put into the set of another table.

A client may have 65,536 addresses. Read next: learned.py, which says whose addresses they are, and port_filter.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import monotonic

import gevent

from etherws.kernel import netlink
from etherws.kernel.learned import LearnedAddresses
from etherws.kernel.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP
from etherws.kernel.nfnetlink import GETSETELEM, NEWSETELEM, entries, message, transact
from etherws.kernel.nft_expressions import attributes, element, element_of
from etherws.kernel.nftables import ELEMENTS, ELEMENTS_SET, TABLE
from etherws.kernel.rules import ADDRESSES, table_name

#: Addresses in one request: the kernel's send buffer holds 200 KiB, an address takes 32 bytes.
SOME = 2000

#: Messages of the kernel, of some hundred addresses each, that are read within milliseconds.
FEW = 4


def addresses_in(table: str, name: str) -> dict[bytes, float]:
    """The addresses that the rules have added to a set, and for how many seconds more each stays in it.

    Empty if there is no such set. Raises OSError.
    """
    request = message(GETSETELEM, attributes({TABLE: table, ELEMENTS_SET: name}), NLM_F_DUMP)
    try:
        found = list(entries(GETSETELEM, request))
    except FileNotFoundError:
        return {}
    if len(found) < FEW:
        return _elements(found)
    # It takes half a second for the most that a client may have: in a thread, frames go on meanwhile.
    return dict(gevent.get_hub().threadpool.apply(_elements, (found,)))


def add_addresses(table: str, name: str, addresses: Mapping[bytes, float]) -> None:
    """Add addresses to a set that rules add to; each stays for so many seconds.

    Before Linux 5.3 it stays as long as one that the rules add. Raises OSError.
    """
    for request in requests(table, name, addresses):
        transact([request])


def requests(table: str, name: str, addresses: Mapping[bytes, float]) -> Iterator[bytes]:
    """The requests of add_addresses()."""
    listed = list(addresses.items())
    for start in range(0, len(listed), SOME):
        some = b"".join(element(address, seconds) for address, seconds in listed[start : start + SOME])
        values = attributes({TABLE: table, ELEMENTS_SET: name, ELEMENTS: some})
        yield message(NEWSETELEM, values, NLM_F_CREATE | NLM_F_APPEND)


def keep(interface: str, learned: LearnedAddresses) -> None:
    """Let what the rules of this interface have learned go on counting for its owner. Raises OSError."""
    learned.give(addresses_in(table_name(interface), ADDRESSES), monotonic())


def fill(interface: str, learned: LearnedAddresses, room: int, source: bytes) -> None:
    """Begin the set of this interface with what its owner's other ports have learned: see LearnedAddresses.take().

    Raises OSError; then `learned` has it again.
    """
    addresses = learned.take(room, source, monotonic())
    try:
        add_addresses(table_name(interface), ADDRESSES, addresses)
    except OSError:
        learned.give(addresses, monotonic())
        raise


def _elements(found: Sequence[Mapping[int, memoryview]]) -> dict[bytes, float]:
    return dict(
        element_of(one) for values in found for _, one in netlink.attributes(values.get(ELEMENTS, memoryview(b"")))
    )
