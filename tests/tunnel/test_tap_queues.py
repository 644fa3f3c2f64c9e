"""Several queues of one TAP: which frames each gets, and what is the device's and not a queue's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from etherws.errors import DeviceLost
from etherws.kernel import interfaces
from etherws.tunnel.offloads import Offload
from etherws.tunnel.tap import Tap
from etherws.tunnel.tap_driver import IFF_DETACH_QUEUE, interface
from tests.lab.flows import Wire, packet, queue_of, waiting
from tests.lab.hosts import Host
from tests.lab.offloads import takes_super_frames

FLOWS = range(4)


@pytest.fixture
def queues(host: Host) -> Iterator[list[Tap]]:
    """Four queues of one device that has a session."""
    with contextlib.ExitStack() as stack, host.namespace.inside():
        first = stack.enter_context(contextlib.closing(Tap("ethws0", multi_queue=True)))
        first.begin(offload=Offload.TCP)
        found = [first, *(stack.enter_context(contextlib.closing(first.queue())) for _ in range(3))]
        yield found


def send(host: Host, wire: Wire, number: int = 0) -> None:
    """Send a datagram of each flow by the device."""
    for flow in FLOWS:
        wire.send(flow, number)


def test_a_flow_is_answered_on_the_queue_by_which_it_came(host: Host, queues: list[Tap]) -> None:
    wire = Wire(host, "ethws0")
    for turn in range(4):
        for flow in FLOWS:
            queues[(flow + turn) % 4].write_batch([packet(flow, turn, back=True)])
        send(host, wire, turn)
        assert queue_of(queues) == {flow: (flow + turn) % 4 for flow in FLOWS}


def test_a_flow_that_nobody_has_answered_stays_on_its_queue(host: Host, queues: list[Tap]) -> None:
    wire = Wire(host, "ethws0")
    send(host, wire)
    places = queue_of(queues)
    assert set(places) == set(FLOWS)
    for number in range(20):
        send(host, wire, number)
        assert queue_of(queues) == places


def test_a_detached_queue_gets_nothing_and_the_others_get_its_flows(host: Host, queues: list[Tap]) -> None:
    wire = Wire(host, "ethws0")
    for gone in range(4):
        for flow in FLOWS:
            queues[gone].write_batch([packet(flow, 0, back=True)])
        send(host, wire)
        assert queues[gone].detach() >= len(FLOWS)
        # Once more, for nothing.
        assert queues[gone].detach() == 0
        send(host, wire)
        assert set(queue_of(queues)) == set(FLOWS)
        assert not waiting(queues[gone])
        # What comes from the peer meanwhile still arrives.
        queues[gone].write_batch([packet(0, 1, back=True)])
        assert wire.receive(len(FLOWS) + 1)[-1] == (0, 1)
        assert not queues[gone].drops
        queues[gone].attach()
        queues[gone].attach()
        for flow in FLOWS:
            queues[gone].write_batch([packet(flow, 0, back=True)])
        send(host, wire)
        assert queue_of(queues) == dict.fromkeys(FLOWS, gone)
        wire.receive(len(FLOWS))


def test_what_is_the_devices_is_left_alone_by_a_queue_that_joins(host: Host, queues: list[Tap]) -> None:
    wire = Wire(host, "ethws0")
    with host.namespace.inside():
        first = queues[0]
        assert takes_super_frames(host.namespace, "ethws0")
        send(host, wire)
        # As a worker does: the process that has the port lends it the queue.
        lent = Tap.adopt(os.dup(queues[1].fileno()), first.index, borrowed=True)
        for tap in (lent, queues[2], first):
            tap.drops["ENOBUFS"] = 3
            before = tap.drops
            tap.begin(offload=Offload.NONE, joining=True)
            # Who counted those goes on.
            assert (dict(tap.drops), dict(before)) == ({}, {"ENOBUFS": 3})
        lent.close()
        assert takes_super_frames(host.namespace, "ethws0")
        assert set(queue_of(queues)) == set(FLOWS)
        first.carrier(False)
        queues[2].begin(offload=Offload.TCP, joining=True)
        first.queue().close()
        assert host.links()["ethws0"].get("carrier") == 0


def test_the_kernel_makes_no_queues_of_its_own_for_256_that_there_could_be(host: Host) -> None:
    """They would be megabytes for each client that asks for two connections."""

    def kinds(tap: Tap) -> list[str]:
        with host.netlink() as route:
            return [str(qdisc.get_attr("TCA_KIND")) for qdisc in route.get_qdiscs(index=tap.index)]

    with host.namespace.inside(), contextlib.closing(Tap("ethws0", multi_queue=True)) as tap:
        assert kinds(tap) == ["noqueue"]
        with contextlib.closing(tap.queue()):
            assert kinds(tap) == ["noqueue"]
        interfaces.set_rate(tap.index, 10_000_000)
        assert kinds(tap)[0] == "tbf"
        interfaces.set_rate(tap.index, None)
        assert kinds(tap) == ["noqueue"]
        # No limit, no change.
        interfaces.set_rate(tap.index, None)
        assert kinds(tap) == ["noqueue"]


def test_the_device_stays_until_the_one_that_made_it_is_closed(host: Host) -> None:
    with host.namespace.inside():
        first = Tap("ethws0", multi_queue=True)
        second, third = first.queue(), first.queue()
        index = first.index
        third.close()
        # The founder's member ends first: its queue is detached, and the descriptor stays; or all of it goes.
        first.detach()
        assert interface(first.fileno())[1] & IFF_DETACH_QUEUE
        assert interfaces.tap_queues("ethws0") == (2, True)
        assert second.alive()
        assert second.locate() == index
        first.close()
        assert not second.alive()
        assert "ethws0" not in host.links()
        second.close()


def test_a_process_that_gets_the_devices_own_queue_attaches_it(host: Host) -> None:
    """As after SIGUSR2, or from systemd's store: further queues are not kept."""
    with host.namespace.inside():
        first = Tap("ethws0", multi_queue=True)
        second = first.queue()
        first.detach()
        kept = os.dup(first.fileno())
        first.release()
        second.close()
        with contextlib.closing(Tap.adopt(kept, first.index, first.header)) as adopted:
            wire = Wire(host, "ethws0")
            send(host, wire)
            assert queue_of([adopted]) == dict.fromkeys(FLOWS, 0)


def test_the_next_session_has_a_queue_that_is_attached(host: Host) -> None:
    """The last one may have been of a link whose first member ended before the others."""
    with host.namespace.inside(), contextlib.closing(Tap("ethws0", multi_queue=True)) as tap:
        wire = Wire(host, "ethws0")
        tap.detach()
        tap.begin(offload=Offload.NONE)
        send(host, wire)
        assert queue_of([tap]) == dict.fromkeys(FLOWS, 0)


def test_queues_are_closed_when_the_process_makes_way_for_another_program(queues: list[Tap]) -> None:
    assert not any(os.get_inheritable(queue.fileno()) for queue in queues)


def test_a_queue_of_a_device_that_is_gone(host: Host, queues: list[Tap]) -> None:
    host.delete_link("ethws0")
    assert queues[1].detach() == 0
    with pytest.raises(DeviceLost, match="ethws0 is gone"):
        queues[1].attach()
    with pytest.raises(DeviceLost, match="ethws0 is gone"):
        queues[1].write_batch([packet(0, 0)])
    with pytest.raises(DeviceLost, match="ethws0 is gone"):
        queues[0].queue()


def test_an_ordinary_device_has_one_queue_that_stays(host: Host) -> None:
    with host.namespace.inside(), contextlib.closing(Tap("ethws0")) as tap:
        wire = Wire(host, "ethws0")
        tap.attach()
        tap.detach()
        send(host, wire)
        assert queue_of([tap]) == dict.fromkeys(FLOWS, 0)


class End:
    """One end of a link of two members."""

    def __init__(self, stack: contextlib.ExitStack, host: Host, *, back: bool) -> None:
        self._back, self.host = back, host
        with host.namespace.inside():
            first = stack.enter_context(contextlib.closing(Tap("ethws0", multi_queue=True)))
            self.queues = [first, stack.enter_context(contextlib.closing(first.queue()))]
            first.begin(offload=Offload.TCP)
        self._wire = Wire(host, "ethws0")

    def send(self) -> dict[int, int]:
        """Send a datagram of each flow; return by which queue it goes."""
        for flow in FLOWS:
            self._wire.send(flow, 0, back=self._back)
        return queue_of(self.queues)

    def take(self, places: dict[int, int]) -> None:
        """Receive one of each flow, by these queues."""
        for flow, place in places.items():
            self.queues[place].write_batch([packet(flow, 0, back=not self._back)])
        assert sorted(flow for flow, _ in self._wire.receive(len(places))) == sorted(places)

    def hold(self) -> None:
        """Have each flow stay on its queue."""
        with self.host.namespace.inside():
            spare = self.queues[0].spare_queue()
        for queue in self.queues:
            queue.hold_flows(os.dup(spare))
        os.close(spare)


def other(places: dict[int, int]) -> dict[int, int]:
    """Each flow by the other one of two queues."""
    return {flow: 1 - place for flow, place in places.items()}


@pytest.fixture
def ends(hosts: tuple[Host, Host]) -> Iterator[tuple[End, End]]:
    with contextlib.ExitStack() as stack:
        yield End(stack, hosts[0], back=False), End(stack, hosts[1], back=True)


def cross(ends: tuple[End, End]) -> list[dict[int, int]]:
    """Send from both ends at once; return the places at both, as the first end counts its queues. The hash of two
    machines is not the same; here the second end has its queues in another order."""
    ours, theirs = ends[0].send(), other(ends[1].send())
    ends[1].take(other(ours))
    ends[0].take(theirs)
    return [ours, theirs]


def test_both_ends_follow_each_other_for_ever_unless_their_flows_are_held(ends: tuple[End, End]) -> None:
    ours, theirs = cross(ends)
    assert all(ours[flow] != theirs[flow] for flow in FLOWS)
    # Why there is hold_flows(): if this fails, the kernel has become better.
    for _ in range(10):
        assert cross(ends) == [theirs, ours]
        ours, theirs = theirs, ours
    for end in ends:
        end.hold()
    before = cross(ends)
    for _ in range(10):
        assert cross(ends) == before


def test_flows_that_are_held_stay_on_their_queues_wherever_frames_come(ends: tuple[End, End]) -> None:
    end = ends[0]
    places = end.send()
    end.hold()
    end.take(other(places))
    assert end.send() == places
    # One that another process has opened does the same.
    first = end.queues[0]
    fd, spare = (os.dup(each) for each in first.descriptors())
    with end.host.namespace.inside():
        lent = Tap.adopt(fd, borrowed=True)
    with contextlib.closing(lent):
        lent.hold_flows(spare)
        lent.write_batch([packet(flow, 0, back=True) for flow in FLOWS if places[flow] == 1])
        assert end.send() == places
    for queue in end.queues:
        queue.let_flows_go()
        assert queue.descriptors() == (queue.fileno(),)
    end.take(other(places))
    assert end.send() == other(places)
