"""What the ports of a server have in common, in a real kernel: can it filter, and what is left of gone ports."""

from __future__ import annotations

import os
import sys

import gevent
import pytest

from etherws.errors import DeviceError
from etherws.kernel import kernel_filters, nftables, port_tables, rules
from etherws.kernel.kernel_filters import KernelFilters
from etherws.kernel.rules import Rules
from tests.lab.hosts import PATIENCE, Host
from tests.lab.lan import in_use, make_lan, tables


@pytest.fixture
def lan(host: Host) -> Host:
    """A bridge of three ports; see make_lan()."""
    return make_lan(host)


def test_a_kernel_that_cannot_filter_does_without_what_nobody_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def cannot() -> None:
        raise DeviceError("cannot filter what clients send: it takes another kernel")

    monkeypatch.setattr(port_tables, "check", cannot)
    filters = KernelFilters()
    assert "it takes another kernel; so clients may have any number of source addresses" in caplog.text
    usual = Rules(macs=256, rate_down=10**6, isolated=True, macs_required=False)
    assert filters.possible(usual) == Rules(rate_down=10**6, isolated=True)
    assert filters.possible(Rules(rate_down=10**6)) == Rules(rate_down=10**6)
    for wanted in (
        *(Rules(macs=1), Rules(macs=256, drop=frozenset({rules.BPDU}), macs_required=False)),
        *(Rules(macs=256, vlan=10, macs_required=False), Rules(vlans=frozenset({10}))),
    ):
        with pytest.raises(DeviceError, match="it takes another kernel"):
            filters.possible(wanted)


def test_the_tables_of_ports_that_are_gone_are_removed_soon(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_filters, "REMOVAL_DELAY", 0.01)
    with lan.namespace.inside(), gevent.Timeout(PATIENCE):
        filters = KernelFilters()
        assert filters.possible(Rules(macs=1)) == Rules(macs=1)
        for name in ("port", "other"):
            in_use(lan, Rules(macs=1), name)
        lan.delete_link("port")
        filters.remove_stale_tables_soon()
        filters.remove_stale_tables_soon()
        while tables(lan).keys() != {"etherws-other"}:
            gevent.sleep(0.005)
        # At the end, without delay.
        monkeypatch.setattr(kernel_filters, "REMOVAL_DELAY", 1000.0)
        lan.delete_link("other")
        filters.remove_stale_tables_soon()
        filters.close()
        assert not tables(lan)


def test_the_kernel_is_asked_before_it_is_needed(host: Host) -> None:
    with host.namespace.inside():
        port_tables.check()
        assert not nftables.table_handles()


@pytest.mark.vm_too
def test_without_the_right_to_filter_the_hint_is_told(host: Host) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give its rights up")
    code = (
        "from etherws import errors\nfrom etherws.kernel import port_filter, port_tables\n"
        "from etherws.kernel.rules import BPDU, Rules\n"
        "port = port_filter.PortFilter(1)\n"
        "port.need(Rules()), port.arm()\n"
        "drops = port.drops()\n"
        "port.clear(), port_tables.remove_stale_tables()\n"
        "for rules in Rules(macs=1), Rules(drop={BPDU}), Rules(rate_down=10**6), Rules(isolated=True):\n"
        "    try: port.need(rules), port.arm()\n"
        "    except errors.DeviceError as exc: print(exc)\n"
        "try: port_tables.check()\n"
        "except errors.DeviceError as exc: print(exc, drops, 'done')"
    )
    process = host.run("setpriv", "--bounding-set=-net_admin", "--inh-caps=-all", sys.executable, "-c", code)
    lines = process.says("{} done").splitlines()
    assert len(lines) == 5, lines
    assert all("CAP_NET_ADMIN" in line or "--bridge" in line for line in lines), lines


def test_what_a_killed_server_left_is_removed_and_nothing_else(lan: Host) -> None:
    lan.command("nft add table netdev mine")
    lan.command("nft add table netdev etherws")
    with lan.netlink() as route:
        route.link("add", ifname="ethws7", kind="tuntap", mode="tap")
    with lan.namespace.inside():
        for name in ("ethws7", "port"):
            in_use(lan, Rules(macs=1), name)
        lan.delete_link("ethws7")
        port_tables.remove_stale_tables()
        assert sorted(nftables.table_handles()) == ["etherws", "etherws-port", "mine"]
