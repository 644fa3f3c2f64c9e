"""What waits ahead of an interface: set by one message each, and the same as pyroute2 sets."""

from __future__ import annotations

import pytest

from etherws.kernel import qdiscs
from etherws.kernel.qdiscs import Queue
from tests.lab.hosts import Host
from tests.lab.lan import index_of, make_lan

HANDLE = 0xE7E70000

#: A token bucket counts time in units of 64 ns (include/net/pkt_sched.h, PSCHED_SHIFT); pyroute2 in microseconds.
MICROSECOND = 16


def token_bucket(host: Host, index: int) -> dict[str, int]:
    """What the kernel says of the token bucket of an interface."""
    with host.netlink() as route:
        [found] = [one for one in route.get_qdiscs(index=index) if one["handle"] == HANDLE]
        return dict(found.get_nested("TCA_OPTIONS", "TCA_TBF_PARMS"))


@pytest.mark.parametrize(
    ("rate", "burst", "limit"), [(1, 3044, 20000), (1_250_000, 6250, 68750), (2**32 - 1, 21_474_836, 236_223_201)]
)
def test_a_token_bucket_is_the_one_that_pyroute2_sets(host: Host, rate: int, burst: int, limit: int) -> None:
    index = index_of(make_lan(host), "port")
    with host.namespace.inside():
        qdiscs.set_token_bucket(index, HANDLE, rate, burst, limit)
        assert qdiscs.get(index) == Queue(HANDLE, "tbf", rate)
        ours = token_bucket(host, index)
        # Again: it is changed, not added.
        qdiscs.set_token_bucket(index, HANDLE, rate + 7 & 0xFFFFFFFF, burst, limit)
        qdiscs.remove(index, HANDLE)
        assert qdiscs.get(index) == Queue(0, "noqueue", None)
    assert (ours["rate"], ours["limit"]) == (rate, limit)
    if burst // rate > 200:
        # Such a time does not fit into what pyroute2 sends.
        return
    with host.netlink() as route:
        route.tc("replace", "tbf", index, HANDLE, rate=rate, burst=burst, limit=limit)
    theirs = token_bucket(host, index)
    assert abs(ours.pop("buffer") - theirs.pop("buffer")) <= MICROSECOND
    assert ours == theirs


def test_what_is_somebody_elses_is_told_and_left(host: Host) -> None:
    index = index_of(make_lan(host), "port")
    host.command("tc qdisc add dev port root handle 5: pfifo limit 10")
    with host.namespace.inside():
        assert qdiscs.get(index) == Queue(0x50000, "pfifo", None)
        with pytest.raises(OSError, match="Invalid argument"):
            qdiscs.remove(index, HANDLE)
        qdiscs.set_none(index)
        found = qdiscs.get(index)
        assert found is not None
        assert found.kind == "noqueue"


def test_what_cannot_be_set_is_an_error(host: Host) -> None:
    with host.namespace.inside():
        assert qdiscs.get(4711) is None
        with pytest.raises(OSError, match="No such device"):
            qdiscs.set_none(4711)
        with pytest.raises(OSError, match="No such device"):
            qdiscs.remove(4711, HANDLE)
        # There is no token bucket that it could be in.
        with pytest.raises(OSError, match="No such file"):
            qdiscs.set_fair_queues(1, HANDLE + 0x10000, HANDLE + 1)
