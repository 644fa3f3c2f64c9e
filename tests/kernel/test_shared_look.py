"""A look for many: how long it is used, and in which turns it is taken."""

from __future__ import annotations

import gevent
import pytest

from etherws.kernel.shared_look import SharedLook


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_it_is_used_until_it_is_old_and_longer_if_it_took_long() -> None:
    clock_, looks = Clock(), [0]

    def look() -> int:
        looks[0] += 1
        clock_.now += 0.5 if looks[0] == 2 else 0.0
        return looks[0]

    shared: SharedLook[int] = SharedLook(1.0, clock_)
    assert [shared.get(look), shared.get(look)] == [1, 1]
    clock_.now += 1.0
    # This one takes half a second: it is used for ten.
    assert shared.get(look) == 2
    clock_.now += 9.9
    assert shared.get(look) == 2
    clock_.now += 0.2
    assert shared.get(look) == 3


def test_all_who_ask_at_once_get_one_look() -> None:
    looks: list[int] = []

    def look() -> int:
        looks.append(1)
        gevent.sleep(0)
        return 7

    shared: SharedLook[int] = SharedLook(100.0)
    asked = [gevent.spawn(shared.get, look) for _ in range(20)]
    gevent.joinall(asked, raise_error=True)
    assert {each.value for each in asked} == {7}
    assert len(looks) == 1


def test_an_error_is_of_who_asked_and_the_next_one_looks_again() -> None:
    def fail() -> int:
        raise OSError("no")

    shared: SharedLook[int] = SharedLook(1.0)
    with pytest.raises(OSError, match="no"):
        shared.get(fail)
    assert shared.get(lambda: 7) == 7
