"""Checks of several workers' clients: the process with the ports says which may begin, and when one is over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from time import monotonic

import pytest

from etherws.errors import ChannelError, DeviceError, NoPort, Refused
from etherws.features import CHECK, IDLE
from etherws.server.port import ClientKey
from etherws.server.ports import Ports
from etherws.settings import ServerSettings
from etherws.workers import remote_checks
from tests.lab.hosts import Host
from tests.lab.lent_ports import USUAL, Lender, lending, soon


@pytest.fixture(scope="module")
def shared(network: None) -> Iterator[Host]:
    """A machine for all tests here."""
    with contextlib.closing(Host()) as host:
        yield host


@pytest.fixture
def lender(shared: Host) -> Iterator[Lender]:
    """Two workers, and who has the ports."""
    with lending(shared) as made:
        yield made


def test_one_measures_at_a_time_at_all_workers(lender: Lender) -> None:
    check = lender.one.ports.checks.begin(CHECK, "alice", "192.0.2.1")
    for worker in (lender.one, lender.other):
        with pytest.raises(Refused, match="another check is running") as refused:
            worker.ports.checks.begin(CHECK, "bob", "192.0.2.2")
        assert refused.value.status == "503 Service Unavailable"
        assert 1 <= int(dict(refused.value.headers)["Retry-After"]) <= 30
        worker.ports.checks.begin(IDLE, "bob", "192.0.2.2").end()
    check.end()
    check.end()
    # Who tells first is heard first.
    lender.one.ports.checks.begin(CHECK, None, "192.0.2.3").end()


def test_the_check_of_a_worker_that_ends_is_over(lender: Lender) -> None:
    lender.one.ports.checks.begin(CHECK, "alice", "192.0.2.1")
    lender.one.ports._channel.close()
    soon(lambda: lender.one.link not in lender.server.workers)
    lender.other.ports.checks.begin(CHECK, "alice", "192.0.2.1").end()


def test_the_rate_is_for_all_connections_of_the_owner(lender: Lender) -> None:
    check = lender.one.ports.checks.begin(CHECK, "alice", "192.0.2.1")
    now = monotonic()
    check.pacer(1000).wait(1000, now)
    other = lender.other.ports.checks.begin(IDLE, "alice", "192.0.2.9")
    assert other.pacer(1000).wait(0, now) == pytest.approx(8, abs=0.1)
    check.end()
    with pytest.raises(DeviceError, match="the check has ended"):
        check.pacer(1000)


def test_the_operator_is_obeyed_at_each_worker(lender: Lender) -> None:
    lender.ports.gate.shut_out(["alice"], [], 60)
    with pytest.raises(Refused, match="the operator of this server"):
        lender.other.ports.checks.begin(CHECK, "alice", "192.0.2.1")


def test_a_worker_that_asks_for_nonsense_is_broken(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_checks, "CALL_TIMEOUT", 0.1)
    with pytest.raises(NoPort):
        lender.one.ports.checks.begin("x", "alice", "192.0.2.1")
    assert "'kind' is no kind of check" in lender.hung[0][1]
    monkeypatch.undo()
    lender.other.ports.checks.begin(CHECK, "alice", "192.0.2.1").end()


def test_an_answer_for_which_nobody_waits_is_given_back(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_checks, "CALL_TIMEOUT", 0.0)
    with pytest.raises(NoPort):
        lender.one.ports.checks.begin(CHECK, "alice", "192.0.2.1")
    monkeypatch.undo()

    def free() -> bool:
        with contextlib.suppress(Refused, ChannelError):
            lender.other.ports.checks.begin(CHECK, "bob", "192.0.2.1").end()
            return True
        return False

    soon(free)


@pytest.mark.parametrize(
    ("identity", "address", "full"),
    [("alice", "192.0.2.9", False), ("bob", "192.0.2.1", True), (None, "192.0.2.1", True)],
)
def test_whether_there_is_a_port_is_known_without_taking_one(
    shared: Host, identity: str | None, address: str, full: bool
) -> None:
    with shared.namespace.inside(), contextlib.closing(Ports(ServerSettings(ping_interval=0))) as ports:
        assert not ports.checks.begin(IDLE, identity, address).full
        alice = ports.take(ClientKey("alice", None, "192.0.2.1"), USUAL, lambda: None)
        assert ports.checks.begin(IDLE, identity, address).full is full
        ports.free(alice)
        assert not ports.checks.begin(IDLE, identity, address).full


def test_a_worker_is_told_whether_there_is_a_port(lender: Lender) -> None:
    assert lender.one.ports.checks.begin(IDLE, "alice", "192.0.2.1").full is False
    lender.ports.checks._full = lambda identity, address: True
    assert lender.one.ports.checks.begin(IDLE, "alice", "192.0.2.1").full is True
