"""What the filters of all ports have dropped: real rules, asked for together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from etherws.kernel import nftables
from etherws.kernel.kernel_filters import KernelFilters
from etherws.kernel.learned import LearnedAddresses
from etherws.kernel.port_filter import PortFilter
from etherws.kernel.rule_counts import RuleCounts
from etherws.kernel.rules import Rules, table_name
from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import Host
from tests.lab.lan import make_lan, source


@pytest.fixture
def lan(host: Host) -> Iterator[Host]:
    made = make_lan(host)
    with made.namespace.inside():
        yield made


def filtered(filters: KernelFilters, lan: Host, name: str) -> PortFilter:
    port = filters.port_filter(lan.links()[name]["index"])
    port.need(Rules(macs=1), LearnedAddresses())
    port.arm()
    return port


def send(lan: Host, name: str, *numbers: int) -> None:
    far = lan.frames(f"far-{name}")
    for number in numbers:
        far.send(frame(60, to=BROADCAST, source=source(number)))


def test_the_counts_are_those_of_each_port(lan: Host) -> None:
    filters = KernelFilters()
    ports = [filtered(filters, lan, name) for name in ("port", "other")]
    send(lan, "port", 1, 2, 3)
    send(lan, "other", 4, 5)
    counts = RuleCounts()
    assert counts.look() == {
        table_name("port"): {"source-address": 2},
        table_name("other"): {"source-address": 1},
    }
    for port in ports:
        assert counts.look()[table_name(port.applied[0])] == port.drops()  # type: ignore[index]
    assert counts.total == {"source-address": 3}
    filters.close()


def test_the_total_never_goes_down(lan: Host) -> None:
    filters = KernelFilters()
    port = filtered(filters, lan, "port")
    send(lan, "port", 1, 2, 3)
    counts = RuleCounts()
    counts.look()
    counts._shared._until = 0.0
    # Its rules are put in anew, and count from 0.
    port.clear()
    port.need(Rules(macs=1), LearnedAddresses())
    port.arm()
    send(lan, "port", 1, 2)
    assert counts.look() == {table_name("port"): {"source-address": 1}}
    counts._shared._until = 0.0
    port.clear()
    assert counts.look() == {}
    assert counts.total == {"source-address": 3}
    filters.close()


def test_without_an_answer_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[bytes]:
        raise OSError("no")

    monkeypatch.setattr(nftables, "rules", refuse)
    counts = RuleCounts()
    assert counts.look() == {}
    assert not counts.total
