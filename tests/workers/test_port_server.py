"""The port process, with workers that end, hang or say nonsense: nobody else notices."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import gevent
import pytest

from etherws.access.policy import Profile
from etherws.errors import DeviceError, NoPort
from etherws.server import port as port_module
from etherws.server import ports as ports_module
from etherws.server.login_queue import FAILURE_INTERVAL, FREE_FAILURES
from etherws.server.port import State
from etherws.tunnel import shared_rates, tap_probe
from etherws.tunnel.offloads import Offload
from etherws.tunnel.scheduling import low_priority
from etherws.workers import datagrams, worker_link
from etherws.workers.datagrams import pair
from etherws.workers.messages import VERSION
from etherws.workers.worker_link import WorkerLink
from tests.lab.hosts import Host
from tests.lab.lent_ports import Lender, LentPorts, key, lending, send, soon
from tests.lab.turns import anothers_turn


@pytest.fixture
def lender(host: Host) -> Iterator[Lender]:
    """The ports of lost clients are kept for as long as the test takes."""
    with lending(host) as made:
        yield made


class Raw:
    """A worker that sends whatever a test wants."""

    def __init__(self, lender: Lender, *, greeted: bool = True) -> None:
        ours, self.socket = pair()
        self.socket.setblocking(False)
        self.link: WorkerLink = lender.server.attach(ours, 77)
        if greeted:
            self.call(1, "hello", version=VERSION)

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message).encode())

    def hear(self) -> dict[str, Any]:
        """The next message; its descriptors are closed."""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, 70_000, 16)
            except BlockingIOError:
                gevent.sleep(0.001)
                continue
            for fd in fds:
                socket.close(fd)
            found: dict[str, Any] = json.loads(data)
            return found

    def call(self, number: int, verb: str, **values: Any) -> dict[str, Any]:
        self.say(call=number, verb=verb, **values)
        while (heard := self.hear()).get("answer") != number:
            pass
        return heard

    def take(self, number: int, identity: str | None, **values: Any) -> dict[str, Any]:
        return self.call(number, "take", identity=identity, resume=None, address="192.0.2.1", profile={}, **values)


@pytest.fixture
def raw(lender: Lender) -> Iterator[Callable[..., Raw]]:
    """Makes such workers, and ends them."""
    made: list[Raw] = []

    def make(**options: bool) -> Raw:
        made.append(Raw(lender, **options))
        return made[-1]

    yield make
    for each in made:
        each.socket.close()


def states(lender: Lender) -> dict[str, State]:
    """The state of each port, by its client."""
    return {port.client.identity or "": port.state for port in lender.ports}


@pytest.mark.parametrize("takes", [True, False])
def test_a_worker_is_told_whether_the_kernel_takes_udp_super_frames(
    raw: Callable[..., Raw], lender: Lender, monkeypatch: pytest.MonkeyPatch, takes: bool
) -> None:
    monkeypatch.setattr(tap_probe, "_takes", takes)
    assert raw(greeted=False).call(1, "hello", version=VERSION)["uso"] is takes
    monkeypatch.setattr(tap_probe, "takes_uso", lambda: not takes)
    with contextlib.closing(LentPorts(lender.server).ports):
        # By what the port process has said, not by its own look.
        assert tap_probe._takes is not takes


def test_the_ports_of_a_worker_that_ends_are_parked_and_no_others(lender: Lender) -> None:
    lender.one.join(key("alice"))
    lender.one.join(key("bob"))
    lender.other.join(key("carol"))
    lender.one.ports._channel.close()
    soon(lambda: list(states(lender).values()).count(State.PARKED) == 2)
    assert states(lender)["carol"] is State.IN_USE
    assert lender.other.join(key("alice")).tap.name == "ethws0"
    assert not lender.hung


def test_all_ports_of_a_worker_that_ends_are_parked_however_many(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports_module, "PARKED_MAX", 1)
    for name in ("alice", "bob", "carol"):
        lender.one.join(key(name))
    lender.one.ports._channel.close()
    soon(lambda: set(states(lender).values()) == {State.PARKED})
    assert set(states(lender)) == {"alice", "bob", "carol"}
    # Those of clients that were lost one by one are as few as before.
    for name in ("dave", "erin"):
        lender.other.ports.park(lender.other.join(key(name)))
    soon(lambda: set(states(lender)) == {"alice", "bob", "carol", "erin"})


def test_takes_that_wait_end_with_their_worker(lender: Lender, raw: Callable[..., Raw]) -> None:
    mine = raw()
    with anothers_turn():
        for number in range(2, 6):
            mine.say(call=number, verb="take", identity="alice", resume=None, address="192.0.2.1", profile={})
        soon(low_priority.waiting)
        mine.socket.close()
        soon(lambda: not low_priority.waiting())
    assert states(lender) == {"": State.FREE}
    assert mine.link not in lender.server.workers


def test_a_port_that_is_ready_when_its_worker_has_ended_is_parked(
    lender: Lender, raw: Callable[..., Raw], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, take = raw(), lender.ports.take

    def slow(*arguments: Any) -> Any:
        found = take(*arguments)
        mine.socket.close()
        soon(lambda: mine.link not in lender.server.workers)
        return found

    monkeypatch.setattr(lender.ports, "take", slow)
    mine.say(call=2, verb="take", identity="alice", resume=None, address="192.0.2.1", profile={})
    soon(lambda: states(lender) == {"alice": State.PARKED})


def test_a_worker_that_does_not_answer_is_told_of_and_its_client_is_answered_in_time(
    lender: Lender, raw: Callable[..., Raw], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_link, "HUNG_AFTER", 0.05)
    monkeypatch.setattr(port_module, "EVICT_TIMEOUT", 0.01)
    stopped = raw()
    stopped.take(2, "alice")
    # The newcomer gets its 503, others go on.
    for _ in range(2):
        with pytest.raises(NoPort, match="still in use by a session that was told to end"):
            lender.other.join(key("alice"))
    assert not lender.hung
    bob = lender.other.join(key("bob"))
    send(bob, 1)
    soon(lambda: lender.hung)
    assert lender.hung == [(stopped.link, "it does not answer for 0.05 s")]
    assert stopped.link.pid == 77
    # Until it has ended, its port is nobody else's: it may still write there.
    assert states(lender)["alice"] is State.IN_USE
    stopped.socket.close()
    soon(lambda: states(lender)["alice"] is State.PARKED)
    assert lender.other.join(key("alice")).tap.name == "ethws0"
    assert len(lender.hung) == 1


def test_a_worker_that_has_just_ended_is_not_hung(lender: Lender, raw: Callable[..., Raw]) -> None:
    ended = raw()
    assert ended.take(2, "alice")["answer"] == 2
    (lease,) = ended.link.leases.values()
    ended.socket.close()
    # Before anybody has read that.
    ended.link.evict(lease)
    assert not ended.link.channel.failure
    assert not lender.hung
    soon(lambda: states(lender)["alice"] is State.PARKED)


def test_a_worker_that_says_that_it_knows_is_not_hung(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_link, "HUNG_AFTER", 0.05)
    monkeypatch.setattr(port_module, "EVICT_TIMEOUT", 0.01)
    lender.one.join(key("alice"), stays=True)
    for number in range(1, 4):
        with pytest.raises(NoPort):
            lender.other.join(key("alice"))
        assert len(lender.one.evicted) == number
    gevent.sleep(0.06)
    assert not lender.hung


def test_a_worker_that_does_not_read_is_told_of(
    lender: Lender, raw: Callable[..., Raw], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "QUEUE_MAX", 10)
    silent = raw()
    port = silent.take(2, "alice")["port"]
    while not lender.hung:
        lender.server.workers.copy()
        silent.link.leases[port].hold()
    assert lender.hung == [(silent.link, "it does not read what it is sent")]
    assert states(lender)["alice"] is State.IN_USE
    lender.one.join(key("bob"))


TAKE: dict[str, Any] = {"verb": "take", "identity": None, "resume": None, "address": "", "profile": {}}

BAD: dict[str, dict[str, Any]] = {
    "an unknown call": {"call": 9, "verb": "x"},
    "an unknown word": {"tell": "x"},
    "a take without a client": {"call": 9, "verb": "take"},
    "an identity of a megabyte": {"call": 9, **TAKE, "identity": "x" * 20_000},
    "a profile that is none": {"call": 9, **TAKE, "profile": {"macs": None}},
    "a source that is none": {"call": 9, "verb": "arm", "port": 1, "source": "zz"},
    "half a source": {"call": 9, "verb": "arm", "port": 1, "source": "0102"},
    "a port that is no number": {"call": 9, "verb": "drops", "port": "1"},
    "a port to park that is none": {"tell": "park", "port": -1},
    "a login from nowhere": {"call": 9, "verb": "login_wait"},
    "a wrong login from nowhere": {"tell": "login_failed", "address": 7},
    "an answer to nothing": {"answer": 1},
}


def test_a_worker_that_says_nonsense_is_told_of_and_heard_no_more(
    lender: Lender, raw: Callable[..., Raw], caplog: pytest.LogCaptureFixture
) -> None:
    for number, (what, message) in enumerate(BAD.items()):
        bad = raw()
        bad.take(2, what)
        bad.say(**message)
        soon(lambda bad=bad: bad.link in dict(lender.hung))
        bad.say(**TAKE, call=10)
        bad.say(tell="park", port=1)
        lender.one.join(key(str(number)))
    assert set(states(lender)) == {*BAD, *map(str, range(len(BAD)))}
    assert set(states(lender).values()) == {State.IN_USE}
    lines = [record.getMessage() for record in caplog.records if record.name == "etherws.workers.worker_link"]
    assert len(lines) == len(BAD) == len(lender.hung)
    assert all(line.startswith("the worker with PID 77 must be ended: ") for line in lines)


def test_the_first_word_is_the_version(lender: Lender, raw: Callable[..., Raw]) -> None:
    for message in ({"call": 1, **TAKE}, {"tell": "park", "port": 1}, {"call": 1, "verb": "hello"}):
        bad = raw(greeted=False)
        bad.say(**message)
        soon(lambda bad=bad: bad.link in dict(lender.hung))
    assert states(lender) == {"": State.FREE}


def test_a_worker_reaches_only_its_own_ports(lender: Lender, raw: Callable[..., Raw]) -> None:
    lender.one.join(key("alice"))
    bad = raw()
    bad.say(tell="free", port=1)
    bad.say(tell="park", port=2)
    for number, verb in enumerate(("arm", "apply", "drops", "slot"), 2):
        assert bad.call(number, verb, port=1, source="", profile={})["error"] == "DeviceError"
    assert states(lender) == {"alice": State.IN_USE}
    assert not lender.hung


def test_what_is_said_of_a_port_that_is_anothers_by_now_changes_nothing(lender: Lender) -> None:
    first = lender.one.join(key("alice"))
    lender.one.ports.park(first)
    lender.other.join(key("alice"))
    # The first worker judges the client that it still knows.
    lender.one.ports.apply(first, Profile(macs=1))
    lender.one.ports.free(first)
    gevent.sleep(0.005)
    assert states(lender) == {"alice": State.IN_USE}
    assert lender.ports.first.profile == Profile()
    with pytest.raises(DeviceError, match="another client now"):
        first.ask("drops", {})


def test_a_port_that_is_parked_for_another_by_the_time_it_is_free_is_not_its_workers(lender: Lender) -> None:
    lease = lender.one.link.leases[lender.one.join(key("alice")).number]

    def free(port: Any) -> None:
        """To be free may wait for a turn, and others may be faster."""
        lender.ports.free(port)
        lender.other.ports.park(lender.other.join(key("bob")))
        soon(lambda: states(lender) == {"bob": State.PARKED})

    lender.server.give_back(lease, free)
    assert lease.port.client.identity == "bob"
    assert not lease.valid()


def test_a_parked_port_is_judged_by_the_worker_that_parked_it(lender: Lender) -> None:
    port = lender.one.join(key("alice"))
    lender.one.ports.park(port)
    lender.one.ports.apply(port, Profile(macs=1))
    assert lender.ports.first.profile == Profile(macs=1)
    assert states(lender) == {"alice": State.PARKED}
    lender.one.ports.free(port)
    soon(lambda: states(lender) == {"alice": State.FREE})


def test_no_more_parked_ports_are_remembered_than_there_can_be(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_link, "PARKED_MAX", 2)
    for number in range(5):
        lender.one.ports.park(lender.one.join(key(str(number))))
    lender.one.join(key("last"))
    assert len(lender.one.link._parked) == 2


def test_ports_that_are_free_do_not_count_among_those(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_link, "PARKED_MAX", 2)
    port = lender.one.join(key("alice"))
    lender.one.ports.park(port)
    for number in range(5):
        lender.one.ports.free(lender.one.join(key(str(number))))
    lender.one.ports.free(port)
    soon(lambda: states(lender)["alice"] is State.FREE)


def test_the_carrier_goes_when_no_worker_has_the_port(host: Host) -> None:
    def lower_up() -> bool:
        return bool(host.links()["ethws0"].get("carrier"))

    with lending(host, carrier_timeout=0.1) as lender:
        port = lender.one.join(key("alice"))
        port.tap.begin(offload=Offload.NONE)
        assert lower_up()
        lender.one.ports._channel.close()
        soon(lambda: not lower_up())
        again = lender.other.join(key("alice"))
        again.tap.begin(offload=Offload.NONE)
        lender.other.ports.park(again)
        again = lender.other.join(key("alice"))
        again.tap.begin(offload=Offload.NONE)
        # The time of before does not run any more.
        tap = lender.ports.first.tap
        assert tap._carrier_timer is None
        assert lower_up()
        # Nor does it count when the client is lost once more: the whole time begins anew.
        assert tap.unconnected_since is None


def test_when_no_slot_is_free_a_client_with_a_rate_gets_no_port(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_rates, "SLOTS", 1)
    profile = Profile(rate_up=8_000_000)
    lender.one.join(key("alice"), profile)
    with pytest.raises(NoPort, match="remembered already"):
        lender.one.join(key("bob"), profile)
    lender.one.join(key("carol"))
    soon(lambda: states(lender) == {"alice": State.IN_USE, "carol": State.IN_USE})


def test_a_worker_that_floods_leaves_time_to_others(lender: Lender, raw: Callable[..., Raw]) -> None:
    """A message of it, then whatever else is ready: no second one in the same turn of the event loop."""
    bad, turns = raw(), []
    loop = gevent.get_hub().loop
    prepare = loop.prepare()
    prepare.start(lambda: turns.append(1))
    for _ in range(100):
        bad.say(tell="login_failed", address="192.0.2.9")
    soon(lambda: lender.server.limiter.wait("192.0.2.9", monotonic()) > (100 - FREE_FAILURES) * FAILURE_INTERVAL)
    prepare.stop()
    assert len(turns) >= 100


def test_a_worker_is_one_of_several_that_can_come_and_go(lender: Lender) -> None:
    third = LentPorts(lender.server)
    assert third.join(key("alice")).tap.name == "ethws0"
    third.ports.close()
    soon(lambda: third.link not in lender.server.workers)
    assert states(lender) == {"alice": State.PARKED}
    assert lender.one.link.label == "a worker"
