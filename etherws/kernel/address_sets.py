"""The addresses in an nf_tables set that rules add to: read, and put into the set of another table.

By our own code and not by pyroute2, which would need seconds for the 65,536 addresses that a client may have.
Read next: learned.py, which says whose addresses they are, and port_filter.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic

import gevent
from pyroute2.netlink import NLM_F_DUMP
from pyroute2.netlink.nfnetlink import nftsocket as nft

from etherws.kernel import netlink
from etherws.kernel.learned import LearnedAddresses
from etherws.kernel.nfnetlink import answers, message, transact
from etherws.kernel.rules import ADDRESSES, table_name

#: Addresses in one request: the kernel's send buffer holds 200 KiB, an address takes 32 bytes.
SOME = 2000

#: Messages of the kernel, of some hundred addresses each, that are read within milliseconds.
FEW = 4

#: Attributes of a set's elements (enum nft_set_elem_list_attributes, nft_set_elem_attributes, nft_data_attributes).
_SET_ELEMENTS, _KEY, _EXPIRATION, _VALUE = 3, 1, 5, 1
_NESTED = 1 << 15


def addresses_in(table: str, name: str) -> dict[bytes, float]:
    """The addresses that the rules have added to a set, and for how many seconds more each stays in it.

    Empty if there is no such set. Raises OSError.
    """
    request = message(nft.NFT_MSG_GETSETELEM, nft.nft_set_elem_list_msg, NLM_F_DUMP, TABLE=table, SET=name)
    try:
        found = list(answers(nft.NFT_MSG_GETSETELEM, request))
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
        elements = b"".join(_element(address, seconds) for address, seconds in listed[start : start + SOME])
        head = message(nft.NFT_MSG_NEWSETELEM, nft.nft_set_elem_list_msg, TABLE=table, SET=name)
        some = netlink.attribute(_SET_ELEMENTS | _NESTED, elements)
        # The message begins with its size.
        yield (len(head) + len(some)).to_bytes(4, sys.byteorder) + head[4:] + some


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


def _element(address: bytes, seconds: float) -> bytes:
    key = netlink.attribute(_KEY | _NESTED, netlink.attribute(_VALUE, address))
    expiration = netlink.attribute(_EXPIRATION, max(1, int(seconds * 1000)).to_bytes(8, "big"))
    # NFTA_LIST_ELEM
    return netlink.attribute(1 | _NESTED, key + expiration)


def _elements(found: Sequence[memoryview]) -> dict[bytes, float]:
    addresses = {}
    for attributes in found:
        for _, element in netlink.attributes(dict(netlink.attributes(attributes)).get(_SET_ELEMENTS, memoryview(b""))):
            one = dict(netlink.attributes(element))
            address = bytes(dict(netlink.attributes(one[_KEY]))[_VALUE])
            addresses[address] = int.from_bytes(one.get(_EXPIRATION, b""), "big") / 1000
    return addresses
