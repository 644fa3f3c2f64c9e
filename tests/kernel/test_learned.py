"""What one owner's ports have learned: given back by a port, taken by the next."""

from __future__ import annotations

from etherws.kernel.learned import LearnedAddresses
from tests.lab.lan import source


def several(*numbers: int, left: float = 300.0) -> dict[bytes, float]:
    return {source(number): left for number in numbers}


def test_the_next_port_begins_with_what_the_last_one_learned() -> None:
    learned = LearnedAddresses()
    learned.give(several(1, 2), 100.0)
    assert len(learned) == 2
    assert learned.take(4, source(9), 110.0) == several(1, 2, left=290.0)
    assert learned.take(4, source(1), 110.0) == {}
    assert len(learned) == 0


def test_addresses_are_forgotten_when_their_time_is_over() -> None:
    learned = LearnedAddresses()
    learned.give({source(1): 5.0, source(2): 50.0}, 100.0)
    assert learned.take(4, b"", 105.0) == {source(2): 45.0}


def test_a_port_gets_as_many_as_it_may_have_and_the_rest_stays() -> None:
    learned = LearnedAddresses()
    learned.give({source(number): 100.0 + number for number in range(6)}, 0.0)
    assert learned.take(2, b"", 0.0).keys() == {source(4), source(5)}
    # What its client sends from first is among them.
    assert learned.take(2, source(0), 0.0).keys() == {source(0), source(3)}
    assert learned.take(2, b"", 0.0).keys() == {source(1), source(2)}


def test_addresses_that_one_port_had_come_back_together() -> None:
    learned = LearnedAddresses()
    learned.give(several(1, 2, left=100.0), 0.0)
    learned.give(several(3, 4, left=300.0), 0.0)
    assert learned.take(2, source(1), 0.0).keys() == {source(1), source(2)}
    assert learned.take(2, source(1), 0.0).keys() == {source(3), source(4)}


def test_an_address_that_two_ports_had_is_remembered_once_and_for_longer() -> None:
    learned = LearnedAddresses()
    learned.give(several(1, left=300.0), 0.0)
    learned.give(several(1, left=100.0), 0.0)
    assert learned.take(9, b"", 0.0) == several(1, left=300.0)


def test_no_way_of_coming_and_going_gives_more_than_so_many_for_each_port_at_once() -> None:
    """Ports come and go in every order, and each uses all that it may."""
    room, at_once = 4, 3
    for order in range(3**7):
        learned, ports, known, fresh = LearnedAddresses(), list[dict[bytes, float]](), set[bytes](), 0
        for step in range(7):
            choice = order // 3**step % 3
            if choice == 0 and len(ports) < at_once:
                port = learned.take(room, source(fresh), 0.0)
                while len(port) < room:
                    port[source(fresh)] = 300.0
                    known.add(source(fresh))
                    fresh += 1
                ports.append(port)
            elif choice and ports:
                learned.give(ports.pop(0 if choice == 1 else -1), 0.0)
        assert len(known) <= room * at_once


def test_another_process_goes_on_with_the_same() -> None:
    learned, again = LearnedAddresses(), LearnedAddresses()
    learned.give(several(1, 2), 100.0)
    learned.give(several(3), 110.0)
    learned.give(several(4, left=1.0), 110.0)
    for text, until, port in learned.to_values(120.0):
        again.restore(bytes.fromhex(text), until, port)
    # Those of one port stay together, and what comes is another port's.
    again.give(several(5), 130.0)
    assert again.take(2, source(1), 150.0) == several(1, 2, left=250.0)
    assert again.take(4, b"", 150.0) == {source(3): 260.0, source(5): 280.0}
