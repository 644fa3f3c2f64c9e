"""What a connection's work costs, and when others go on. The clocks are the test's."""

from __future__ import annotations

import gevent
import pytest

from etherws.tunnel import turns as module
from etherws.tunnel.scheduling import LOW_PRIORITY_TURN_SECONDS, TURN_SECONDS, TURN_SHARED_SECONDS, LowPriority
from etherws.tunnel.turns import (
    CHARGED_AT_ONCE,
    DEBT_FREE,
    DEBT_MAX,
    FREE_PART,
    ROUND_SECONDS,
    TURN_MIN_SECONDS,
    Account,
    LastAccount,
    Turn,
    account,
)
from tests.lab.hosts import PATIENCE
from tests.lab.streams import FakeStream


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sources begin anew."""
    monkeypatch.setattr(Account, "_free", 1.0)
    monkeypatch.setattr(Account, "_free_at", 100.0)
    monkeypatch.setattr(module, "FREE_PART_OF_ALL", 1.0)


class Machine:
    """Two clocks, low-priority work, and a connection's turn."""

    def __init__(self, payer: Account | None = None) -> None:
        self.now = 100.0
        self.queue = LowPriority(lambda: self.now)
        self.payer = payer or account("")
        self.turn = Turn(self.payer, lambda: self.now, lambda: self.now, self.queue)

    def work(self, seconds: float, received: int = 0, sent: int = 0, turns: int = 1) -> None:
        """Work for so long, for so many bytes, in so many turns."""
        with gevent.Timeout(PATIENCE):
            for _ in range(turns):
                self.turn.wait()
                self.now += seconds
                self.turn.received += received
                self.turn.sent += sent
                self.turn.end()


def test_a_turn_is_over_after_a_time_whatever_came() -> None:
    machine = Machine()
    assert machine.turn.over()
    machine.turn.wait()
    machine.now += TURN_SECONDS * 0.9
    assert not machine.turn.over()
    machine.now += TURN_SECONDS * 0.2
    assert machine.turn.over()
    machine.turn.wait()
    assert not machine.turn.over()


@pytest.mark.parametrize(
    ("name", "seconds", "received", "sent", "heavy"),
    [
        ("full frames", 0.001, 1_000_000, 0, False),
        ("acknowledgements of a download", 0.001, 20_000, 1_000_000, False),
        ("frames of 14 bytes", 0.001, 7_000, 0, True),
        ("empty pings", 0.001, 1_000, 0, True),
        ("nothing", 0.001, 0, 0, True),
    ],
)
def test_who_costs_much_per_byte_is_heavy(name: str, seconds: float, received: int, sent: int, heavy: bool) -> None:
    machine = Machine()
    machine.work(seconds, received, sent, turns=10)
    assert machine.payer.heavy == heavy, name


def test_who_does_little_is_never_heavy_and_debts_are_forgotten() -> None:
    machine = Machine()
    for _ in range(1000):
        machine.work(0.00008)
        machine.now += 0.01
    assert not machine.payer.heavy
    machine.work(1.0)
    assert machine.payer.heavy
    machine.now += DEBT_MAX / FREE_PART
    machine.work(1.1 * CHARGED_AT_ONCE)
    assert not machine.payer.heavy


def test_what_is_free_for_all_together_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Account, "_free", DEBT_MAX)
    monkeypatch.setattr(module, "FREE_PART_OF_ALL", 0.1)
    now, payers = 100.0, [account("") for _ in range(64)]
    for _ in range(1000):
        now += 0.01
        for payer in payers:
            payer.charge(0.9 * FREE_PART * 0.01, 0, 0, now)
    assert sum(payer.heavy for payer in payers) > 50


def test_the_connections_of_one_source_share_its_account() -> None:
    one, same, other = account("one"), account("one"), account("other")
    assert one is same is not other
    assert account("") is not account("")
    assert account("").source
    del one, same, other
    assert "one" not in module._accounts


def test_the_connections_of_one_source_share_the_time_of_one() -> None:
    alone, many = account("alone"), account("many")
    lasts = {name: payer.begin((0, 0))[1] for name, payer in (("a", alone), ("m0", many), ("m1", many), ("m2", many))}
    taken: dict[str, float] = {}
    for _ in range(3):
        for name in lasts:
            payer = alone if name == "a" else many
            taken[name], lasts[name] = payer.begin(lasts[name])
    assert taken.pop("a") == pytest.approx(TURN_SHARED_SECONDS)
    assert list(taken.values()) == [pytest.approx(min(TURN_SECONDS / 3, TURN_SHARED_SECONDS))] * 3


@pytest.mark.parametrize(
    ("sources", "seconds"),
    [(1, TURN_SECONDS), (10, TURN_SHARED_SECONDS), (150, ROUND_SECONDS / 150), (500, TURN_MIN_SECONDS)],
)
def test_a_round_of_many_sources_is_short(sources: int, seconds: float) -> None:
    payers = [account("") for _ in range(sources)]
    lasts = [payer.begin((0, 0))[1] for payer in payers]
    assert [payer.begin(last)[0] for payer, last in zip(payers, lasts, strict=True)] == [
        pytest.approx(seconds)
    ] * sources


def test_heavy_turns_wait_for_an_idle_loop_and_are_short() -> None:
    machine = Machine()
    machine.work(1.0)
    # Alone it need not.
    machine.turn.wait()
    assert machine.queue._source == ""
    machine.turn.end()
    machine.queue.note("somebody", 1.0, heavy=True)
    machine.turn.wait()
    assert machine.queue._source == machine.payer.source
    machine.now += LOW_PRIORITY_TURN_SECONDS * 1.1
    assert machine.turn.over()
    other = Machine(machine.payer)
    other.turn = Turn(other.payer, lambda: machine.now, lambda: machine.now, machine.queue)
    second = gevent.spawn(other.turn.wait)
    gevent.sleep(0)
    assert machine.queue.waiting() == 1
    machine.turn.end()
    machine.turn.end()
    second.join(PATIENCE)
    assert second.successful()


def test_a_turn_ends_while_its_event_is_waited_for() -> None:
    machine = Machine()
    machine.turn.wait()
    machine.now += 0.5
    stream = FakeStream()
    waiting = gevent.spawn(machine.turn.wait, stream.readable())
    gevent.sleep(0)
    assert machine.payer.heavy
    # To wait costs nothing.
    machine.now += 2 * (DEBT_MAX - DEBT_FREE) / FREE_PART
    machine.payer.charge(0, 0, 0, machine.now)
    stream.feed(b"x")
    waiting.join(PATIENCE)
    assert waiting.successful()
    machine.turn.end()
    assert not machine.payer.heavy


def test_who_is_busy_is_noted_for_low_priority_work() -> None:
    machine = Machine()
    machine.work(0.05, 10_000_000)
    assert machine.queue._others == pytest.approx(0.05)
    machine.work(2 * CHARGED_AT_ONCE, sent=10_000_000)
    assert machine.queue._others > 0.01


def test_a_turn_ends_while_its_greenlet_sleeps() -> None:
    machine = Machine()
    machine.turn.wait()
    machine.now += 0.5
    with gevent.Timeout(PATIENCE):
        machine.turn.sleep(0.001)
    assert machine.payer.heavy
    assert not machine.turn.over()
    machine.turn.end()


def test_the_time_of_other_processes_is_not_charged() -> None:
    machine = Machine()
    used = 0.0
    turn = Turn(machine.payer, lambda: machine.now, lambda: used, machine.queue)
    for cpu, heavy in ((0.0005, False), (0.5, True)):
        turn.wait()
        machine.now += 1.0
        used += cpu
        turn.end()
        assert machine.payer.heavy is heavy


def test_the_last_waits_behind_everybody_whatever_it_costs() -> None:
    machine = Machine(LastAccount("check"))
    machine.payer.charge(0.0, 1 << 20, 1 << 20, machine.now)
    assert machine.payer.heavy
    greenlet = gevent.spawn(machine.turn.wait)
    gevent.sleep(0)
    assert machine.queue.waiting() == 1
    greenlet.join(PATIENCE)
    assert machine.turn.over() is False
    machine.now += 2 * LOW_PRIORITY_TURN_SECONDS
    assert machine.turn.over()
