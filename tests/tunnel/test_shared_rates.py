"""One rate for connections in several processes: the same arithmetic as in one, and no charge is lost."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from etherws.errors import NoPort
from etherws.tunnel import shared_rates
from etherws.tunnel.rate_limit import CREDIT, Pacer
from etherws.tunnel.shared_rates import SLOTS, Rates

RATE = 8_000_000


@pytest.fixture
def rates() -> Iterator[Rates]:
    made = Rates()
    yield made
    made.close()


def test_it_counts_as_a_pacer_does(rates: Rates) -> None:
    slot = rates.new()
    shared, alone, now = rates.pacer(slot.number, RATE), Pacer(RATE), 100.0
    for size in (1514, 0, 60, 65_000, 200_000, 0, 1, 1514) * 20:
        wait = shared.wait(size, now)
        assert wait == pytest.approx(alone.wait(size, now))
        now += wait + size % 7 / 1000


def test_two_processes_share_a_slot_and_others_have_their_own(rates: Rates) -> None:
    with_other = Rates(os.dup(rates.fd))
    mine, others = rates.new(), rates.new()
    rates.pacer(mine.number, RATE).wait(1_000_000, 100.0)
    assert with_other.pacer(mine.number, RATE).wait(0, 100.0) == pytest.approx(1 - CREDIT)
    assert with_other.pacer(others.number, RATE).wait(0, 100.0) == 0
    # The rate may be another one, the debt stays.
    assert with_other.pacer(mine.number, 2 * RATE).rate == 2 * RATE
    assert with_other.pacer(mine.number, 2 * RATE).wait(0, 100.0) == pytest.approx(1 - CREDIT)
    with_other.close()


CHARGES = """
import os, sys
from etherws.tunnel.shared_rates import Rates
pacer = Rates(int(sys.argv[1])).pacer(0, 8000)
sys.stdin.read()
for _ in range(5000):
    pacer.wait(1, 100.0)
while pacer._owed:
    pacer.wait(0, 100.0)
"""


def test_no_charge_is_lost_when_processes_charge_at_once(rates: Rates) -> None:
    slot = rates.new()
    processes = [
        subprocess.Popen([sys.executable, "-c", CHARGES, str(rates.fd)], stdin=subprocess.PIPE, pass_fds=[rates.fd])
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.close()
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert slot.number == 0
    # 15,000 bytes of a millisecond each.
    assert rates.pacer(0, 8000).wait(0, 100.0) == pytest.approx(15 - CREDIT)


LOCKS = """
import fcntl, sys
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX, 8, 0)
print("locked", flush=True)
sys.stdin.read()
"""


def test_nobody_waits_for_a_process_that_was_stopped_while_it_charged(rates: Rates) -> None:
    slot = rates.new()
    pacer = rates.pacer(slot.number, RATE)
    pacer.wait(100_000, 100.0)
    with subprocess.Popen(
        [sys.executable, "-c", LOCKS, str(rates.fd)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[rates.fd],
    ) as stopped:
        assert stopped.stdin
        assert stopped.stdout
        assert stopped.stdout.readline() == b"locked\n"
        # It counts here, for all connections of this process, and the others' slots are free.
        assert pacer.wait(100_000, 100.0) == pytest.approx(0.2 - CREDIT)
        # Also when that one's connection ends.
        del pacer
        gc.collect()
        assert rates.pacer(slot.number, RATE).wait(0, 100.0) == pytest.approx(0.2 - CREDIT)
        other = rates.new()
        assert rates.pacer(other.number, RATE).wait(100_000, 100.0) == pytest.approx(0.1 - CREDIT)
        stopped.stdin.close()
    assert rates.pacer(slot.number, RATE).wait(0, 100.0) == pytest.approx(0.2 - CREDIT)
    assert not rates._owing
    with_other = Rates(os.dup(rates.fd))
    assert with_other.pacer(slot.number, RATE).wait(0, 100.0) == pytest.approx(0.2 - CREDIT)
    with_other.close()


def test_a_slot_is_free_again_when_its_owner_is_forgotten_and_has_no_debt(
    rates: Rates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_rates, "SLOTS", 2)
    first, second = rates.new(), rates.new()
    assert (first.number, second.number) == (0, 1)
    with pytest.raises(NoPort, match="remembered already"):
        rates.new()
    rates.pacer(0, RATE).wait(1_000_000, 100.0)
    del first
    gc.collect()
    again = rates.new()
    assert again.number == 0
    assert rates.pacer(0, RATE).wait(0, 100.0) == 0


def test_the_next_process_goes_on_with_the_debts(rates: Rates) -> None:
    slot = rates.new()
    rates.pacer(slot.number, RATE).wait(1_000_000, 100.0)
    after = Rates(os.dup(rates.fd))
    kept = after.kept(slot.number)
    assert kept
    assert kept.number == slot.number
    # It is nobody else's, neither by the state of another port nor anew.
    assert after.kept(slot.number) is None
    assert after.new().number != slot.number
    assert after.pacer(kept.number, RATE).wait(0, 100.0) == pytest.approx(1 - CREDIT)
    assert after.kept(SLOTS) is after.kept(-1) is None
    after.close()


def test_what_is_not_the_memory_is_refused(tmp_path: object) -> None:
    small = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    reader, writer = os.pipe()
    for fd in (small, reader):
        with pytest.raises(ValueError, match="not the memory of rates"):
            Rates(fd)
    for fd in (small, reader, writer):
        os.close(fd)
    rates = Rates()
    for number in (-1, SLOTS):
        with pytest.raises(ValueError, match="there is no slot"):
            rates.pacer(number, RATE)
    rates.close()
