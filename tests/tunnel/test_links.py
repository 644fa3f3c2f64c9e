"""Several sessions that are one link, on real TAPs of several queues: the order of flows, and sessions that retire."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import gevent
import pytest
from gevent import socket

from etherws.counters import Totals
from etherws.errors import ConnectionClosed, EtherwsError
from etherws.settings import DeviceSettings
from etherws.tunnel.connection import Connection
from etherws.tunnel.session import Session, totals_now
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.tap import Tap
from etherws.tunnel.wire import Version2
from tests.lab.flows import Wire, queue_of, waiting
from tests.lab.hosts import PATIENCE, Host

MEMBERS = 4

#: Flows of which one is looked for that goes by each member.
CANDIDATES = range(64)

#: Datagrams of a flow at a time. Those of all flows fit into one queue.
BURST = 50


class End:
    """One end of a link: its TAP, and the sessions that carry frames now."""

    def __init__(self, stack: contextlib.ExitStack, host: Host, *, server: bool) -> None:
        self._server = server
        self.host, self.totals = host, Totals()
        with host.namespace.inside():
            first = stack.enter_context(contextlib.closing(Tap("ethws0", multi_queue=True)))
            more = [stack.enter_context(contextlib.closing(first.queue())) for _ in range(MEMBERS - 1)]
            self.queues = [first, *more]
        self.wire = Wire(host, "ethws0")
        self.ended: list[EtherwsError] = []

    def session(self, queue: int, sock: socket.socket, *, joining: bool) -> Session:
        """A session that runs."""
        connection = Connection(PlainStream(sock), server=self._server, wire=Version2())
        session = Session(self.queues[queue], connection, DeviceSettings(), totals=self.totals)

        def run() -> None:
            reason = session.run(linked=True, joining=joining)
            self.ended.append(reason)
            session.close(reason)

        gevent.spawn(run)
        gevent.idle()
        return session


class Link:
    """Two ends. The second one has its queues in another order, as a machine with another hash: so its kernel chooses
    other members for the flows that it begins."""

    def __init__(self, stack: contextlib.ExitStack, hosts: tuple[Host, Host]) -> None:
        self.ends = End(stack, hosts[0], server=False), End(stack, hosts[1], server=True)
        for flow in CANDIDATES:
            self.ends[0].wire.send(flow, 0)
        places = queue_of(self.ends[0].queues)
        #: The flow that goes by each member, from the first end.
        self.flows = [next(flow for flow in CANDIDATES if places[flow] == place) for place in range(MEMBERS)]
        self.members = [self.connect(number, joining=number > 0) for number in range(MEMBERS)]

    def connect(self, number: int, *, joining: bool = True) -> tuple[Session, Session]:
        """Connect one member."""
        places = number, (number + 1) % MEMBERS
        return tuple(
            end.session(place, sock, joining=joining)
            for end, place, sock in zip(self.ends, places, socket.socketpair(), strict=True)
        )  # type: ignore[return-value]

    def replace(self, number: int) -> tuple[Session, Session]:
        """Make before break; return the sessions that were there before."""
        before = self.members[number]
        for session in before:
            session.retire()
        self.members[number] = self.connect(number)
        return before

    def stop(self) -> None:
        """End what runs."""
        for sessions in self.members:
            sessions[0].stop()


@pytest.fixture
def link(hosts: tuple[Host, Host]) -> Iterator[Link]:
    with gevent.Timeout(PATIENCE), contextlib.ExitStack() as stack:
        found = Link(stack, hosts)
        yield found
        found.stop()
        while len(found.ends[0].ended) + len(found.ends[1].ended) < 2 * MEMBERS:
            gevent.sleep(0.001)


def exchange(link: Link, first: int) -> list[tuple[int, int]]:
    """Send a burst of all flows by the first end; return what came to the other one, in its order."""
    for number in range(first, first + BURST):
        for flow in link.flows:
            link.ends[0].wire.send(flow, number)
    return link.ends[1].wire.receive(BURST * MEMBERS)


def swaps(came: list[tuple[int, int]]) -> dict[int, int]:
    """How often each flow is out of order."""
    flows = defaultdict(list)
    for flow, number in came:
        flows[flow].append(number)
    return {flow: sum(one > other for one, other in pairwise(numbers)) for flow, numbers in flows.items()}


def all_of(link: Link, count: int) -> list[tuple[int, int]]:
    """Each datagram once, in no order that matters."""
    return sorted((flow, number) for flow in link.flows for number in range(count))


def test_no_flow_is_out_of_order_while_the_members_are_the_same(link: Link) -> None:
    came = [each for turn in range(6) for each in exchange(link, turn * BURST)]
    assert swaps(came) == dict.fromkeys(link.flows, 0)
    assert sorted(came) == all_of(link, 6 * BURST)
    for sessions in link.members:
        assert sessions[0].status()["sent"]["frames"] >= 6 * BURST


def test_each_flow_is_out_of_order_once_at_most_when_a_member_is_replaced(link: Link) -> None:
    came = exchange(link, 0)
    for turn, number in enumerate(range(MEMBERS), 1):
        sending = gevent.spawn(exchange, link, turn * BURST)
        gevent.sleep(0)
        before = link.replace(number)
        came += sending.get()
        # What was replaced is there until its client closes it.
        assert not link.ends[0].ended
        before[0].end(ConnectionClosed("replaced"))
        while len(link.ends[0].ended) + len(link.ends[1].ended) < 2:
            gevent.sleep(0.001)
        for end in link.ends:
            end.ended.clear()
    # One member at a time was replaced, and each once: only the flow of that one may have moved.
    assert all(count <= 1 for count in swaps(came).values())
    assert sorted(came) == all_of(link, (MEMBERS + 1) * BURST)
    assert not any(end.totals.drops for end in link.ends)


def test_a_session_that_retires_leaves_the_queue_to_another_and_still_receives(link: Link) -> None:
    near, far = link.ends
    flow, queue = link.flows[0], near.queues[0]
    before, _ = link.members[0]
    queue.drops["ENOBUFS"] += 2
    before.retire()
    near.wire.send(flow, 1)
    gevent.idle()
    assert waiting(queue) == [(flow, 1)]
    link.replace(0)
    near.wire.send(flow, 2)
    assert far.wire.receive(1) == [(flow, 2)]
    # Once more, while another session waits for the queue: nothing happens to that.
    before.retire()
    near.wire.send(flow, 3)
    assert far.wire.receive(1) == [(flow, 3)]
    queue.drops["ENOBUFS"] += 1
    assert before.summary() == "; dropped 2 ENOBUFS"
    assert link.members[0][0].summary() == "; dropped 1 ENOBUFS"
    assert totals_now(near.totals).drops == {"ENOBUFS": 3}
    before.stop()
    while not near.ended:
        gevent.sleep(0.001)
    assert totals_now(near.totals).drops == {"ENOBUFS": 3}
    near.ended.clear()
    before.retire()
    near.wire.send(flow, 4)
    assert far.wire.receive(1) == [(flow, 4)]
    # The carrier is the link's.
    assert queue.unconnected_since is None
