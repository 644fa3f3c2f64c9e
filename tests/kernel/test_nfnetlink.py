"""A request to nf_tables, and all that the kernel answers."""

from __future__ import annotations

import pytest

from etherws.kernel import nfnetlink, nftables
from tests.lab.hosts import Host


def test_a_thousand_changes_that_all_fail_are_the_first_error(host: Host) -> None:
    # Their errors do not fit into the socket. Tables that are gone are no error here.
    with host.namespace.inside():
        nftables.remove_by_handle(range(1_000_000, 1_003_000))


def test_other_errors_are_raised(host: Host) -> None:
    with host.namespace.inside(), pytest.raises(FileNotFoundError):
        nfnetlink.transact([nftables._table(nfnetlink.DELTABLE, "no-such-table")])
