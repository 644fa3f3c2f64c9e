"""The limit of a path that has a queue: by what a kernel might tell, on a clock of the test."""

from __future__ import annotations

import pytest

from etherws.tunnel.path_queue import FIRST_WINDOW, LEAST, PATIENCE, QUEUE, REST, STALE, UNLIMITED, Facts, PathQueue

#: Bytes of a segment, and seconds of the shortest round trip.
SEGMENT, SHORTEST = 1000, 0.04


class Path:
    """A path, and the limit of the connection that uses it."""

    def __init__(self) -> None:
        self.queue, self.now, self._arrived, self._again = PathQueue(), 100.0, 0, 0
        self.limit = UNLIMITED

    def carry(self, seconds: float, rate: int, wait: float, shortest: float = SHORTEST, lost: float = 0.0) -> list[int]:
        """Let segments arrive at so many bytes per second, with `wait` seconds of queue, and the part `lost` of them be
        sent again; return all limits."""
        limits = []
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self._arrived += rate // SEGMENT // 10
            self._again += round(rate // SEGMENT // 10 * lost)
            facts = Facts(self._arrived, self._again, shortest + wait, shortest, SEGMENT)
            self.limit = self.queue.limit(self.now, facts)
            limits.append(self.limit)
        return limits


@pytest.fixture
def path() -> Path:
    """One that carries 2 MB a second without a queue."""
    path = Path()
    path.carry(1, 2_000_000, 0)
    return path


def test_without_a_queue_there_is_no_limit(path: Path) -> None:
    assert set(path.carry(5, 2_000_000, QUEUE / 2)) == {UNLIMITED}
    assert path.queue.rate == pytest.approx(2_000_000)


def test_a_queue_is_drained_and_the_limit_goes_away_with_it(path: Path) -> None:
    assert path.carry(0.3, 2_000_000, 0.05)[-1] < 2_000_000
    low = path.limit
    rising = path.carry(2, 1_600_000, QUEUE / 2)
    assert rising == sorted(rising)
    assert low < rising[0] < 1.1 * 2_000_000
    path.carry(60, 2_000_000, 0)
    assert path.limit == UNLIMITED


def test_a_longer_queue_is_drained_faster() -> None:
    limits = []
    for wait in (0.02, 0.03):
        path = Path()
        path.carry(1, 2_000_000, 0)
        limits.append(path.carry(0.2, 2_000_000, wait)[-1])
    assert limits[0] > limits[1]


def test_one_burst_is_no_queue(path: Path) -> None:
    for _ in range(5):
        assert path.carry(0.1, 2_000_000, 0.05) == path.carry(0.1, 2_000_000, 0) == [UNLIMITED]


def test_a_long_path_may_vary_more() -> None:
    path = Path()
    assert set(path.carry(2, 2_000_000, 1.9 * QUEUE, shortest=0.24)) == {UNLIMITED}
    assert path.carry(0.5, 2_000_000, 0.05, shortest=0.24)[-1] < UNLIMITED


def test_others_who_fill_the_buffer_for_ever_leave_us_our_part(path: Path) -> None:
    limits = path.carry(60, 2_000_000, 0.05)
    assert min(limits) >= LEAST * 2_000_000
    # One look more may pass at each end.
    assert 0 < sum(limit < UNLIMITED for limit in limits) / 10 <= 60 / (PATIENCE + REST) * (PATIENCE + 0.2)


def test_a_queue_that_comes_and_goes_is_others_too(path: Path) -> None:
    path.carry(2.5, 2_000_000, 0.05)
    limits = []
    for _ in range(8):
        limits += path.carry(0.5, 2_000_000, 0.05) + path.carry(0.5, 2_000_000, 0)
    assert set(limits) == {UNLIMITED}


def test_few_segments_are_never_too_many() -> None:
    path = Path()
    path.carry(1, 200_000, 0.05)
    assert path.limit == FIRST_WINDOW * SEGMENT / SHORTEST


def test_a_connection_that_carries_next_to_nothing_is_not_limited_by_an_old_round_trip() -> None:
    path = Path()
    assert set(path.carry(2, SEGMENT * 10, 0.05, lost=0.5)) == {UNLIMITED}


def test_a_limit_goes_away_while_little_is_carried(path: Path) -> None:
    path.carry(0.5, 2_000_000, 0.05)
    path.carry(2, SEGMENT * 10, 0.05)
    assert path.limit > 100 * 2_000_000


def test_what_a_path_loses_without_a_queue_limits_like_a_queue(path: Path) -> None:
    assert path.carry(0.3, 2_000_000, 0, lost=1.0)[-1] < 2_000_000


def test_random_losses_and_one_burst_of_them_do_not_limit(path: Path) -> None:
    assert set(path.carry(2, 2_000_000, 0, lost=0.1)) == {UNLIMITED}
    for _ in range(5):
        assert path.carry(0.1, 2_000_000, 0, lost=1.0) == path.carry(0.1, 2_000_000, 0) == [UNLIMITED]


def test_losses_that_no_limit_prevents_are_the_paths_own(path: Path) -> None:
    limits = path.carry(60, 2_000_000, 0, lost=0.3)
    assert 0 < sum(limit < UNLIMITED for limit in limits) / 10 <= 60 / (PATIENCE + REST) * (PATIENCE + 0.2)


def test_a_path_that_has_become_slower_is_not_sent_the_rate_of_before(path: Path) -> None:
    path.carry(0.1, 2_000_000, 0.05)
    assert path.carry(0.4, 400_000, 0.05)[-1] < 400_000


def test_a_path_that_has_become_faster_is_used_soon(path: Path) -> None:
    path.carry(1, 400_000, 0.05)
    assert path.limit < 500_000
    for _ in range(8):
        path.carry(0.1, path.limit, 0)
    assert path.limit > 4_000_000


def test_what_is_old_counts_no_more(path: Path) -> None:
    path.carry(0.5, 2_000_000, 0.05)
    assert path.limit < UNLIMITED
    path.now += STALE
    assert path.carry(0.1, 2_000_000, 0.05) == [UNLIMITED]


def test_a_counter_that_begins_anew_is_no_rate(path: Path) -> None:
    assert path.queue.limit(path.now + 0.1, Facts(0, 0, SHORTEST + 0.05, SHORTEST, SEGMENT)) == UNLIMITED
    assert path.queue.rate == 0
