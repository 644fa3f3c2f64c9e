"""Addresses that rules have learned, read from a real kernel and put into another table."""

from __future__ import annotations

import pytest

from etherws.kernel import address_sets
from etherws.kernel.rules import ADDRESSES, AGEING, Rules, table_for
from tests.lab.hosts import Host
from tests.lab.lan import make_lan, passes, source


def test_many_addresses_go_from_one_table_to_another_with_the_time_they_have_left(host: Host) -> None:
    lan = make_lan(host)
    many = {source(number): 10.0 + number / 100 for number in range(5000)}
    with lan.namespace.inside():
        for name in ("port", "other"):
            table_for(name, Rules(macs=len(many))).install()
        address_sets.add_addresses("etherws-port", ADDRESSES, many)
        read = address_sets.addresses_in("etherws-port", ADDRESSES)
        assert read.keys() == many.keys()
        assert all(0 < read[address] <= left for address, left in many.items())
        address_sets.add_addresses("etherws-other", ADDRESSES, read)
        again = address_sets.addresses_in("etherws-other", ADDRESSES)
        assert again.keys() == many.keys()
        assert all(again[address] <= read[address] for address in many)


def test_an_address_that_sends_again_is_as_one_that_was_learned_just_now(host: Host) -> None:
    lan = make_lan(host)
    ends = lan.frames("far-port"), lan.frames("far-other")
    with lan.namespace.inside():
        table_for("port", Rules(macs=1)).install()
        address_sets.add_addresses("etherws-port", ADDRESSES, {source(1): 20.0})
        assert passes(*ends, b"\xff" * 6 + source(1) + b"\x88\xb5" + bytes(46))
        [(address, left)] = address_sets.addresses_in("etherws-port", ADDRESSES).items()
        assert address == source(1)
        assert 20 < left <= AGEING


def test_a_set_that_is_not_there_is_empty_and_takes_nothing(host: Host) -> None:
    with host.namespace.inside():
        assert address_sets.addresses_in("etherws-port", ADDRESSES) == {}
        address_sets.add_addresses("etherws-port", ADDRESSES, {})
        with pytest.raises(FileNotFoundError):
            address_sets.add_addresses("etherws-port", ADDRESSES, {source(1): 1.0})
