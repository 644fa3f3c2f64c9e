"""What a worker gets of the ports that another process has: both are in one process here, the sockets and TAPs real."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from time import monotonic

import gevent
import pytest

from etherws.access.policy import Profile
from etherws.errors import ChannelError, ClientGone, ConnectionClosed, DeviceError, NoPort, Refused
from etherws.kernel import address_sets, nftables
from etherws.kernel.rules import ADDRESSES, table_name
from etherws.server.login_queue import FREE_FAILURES
from etherws.server.port import State
from etherws.server.presence import Presence
from etherws.tunnel.scheduling import low_priority
from etherws.workers import remote_port, remote_ports
from etherws.workers.datagrams import pair
from etherws.workers.messages import VERSION
from etherws.workers.remote_ports import RemotePorts
from tests.lab.descriptors import none_left
from tests.lab.hosts import Host
from tests.lab.lent_ports import Lender, key, lending, send, soon
from tests.lab.sockets import gevent_pair
from tests.lab.turns import anothers_turn


@pytest.fixture
def lender(host: Host) -> Iterator[Lender]:
    """The ports of lost clients are kept for as long as the test takes."""
    with lending(host) as made:
        yield made


def test_a_client_that_comes_back_to_another_worker_gets_its_own_port(lender: Lender) -> None:
    first = lender.one.join(key("alice", "a"))
    assert (lender.one.ports.name, first.tap.name) == ("ethws0", "ethws0")
    lender.one.ports.park(first)
    assert lender.one.join(key("bob", "b")).tap.name == "ethws1"
    again = lender.other.join(key("alice", "a"))
    assert (again.tap.name, again.tap.index) == (first.tap.name, first.tap.index)
    assert [port.state for port in lender.ports] == [State.IN_USE] * 2


def test_one_connection_is_one_at_two_workers(lender: Lender) -> None:
    first = lender.one.join(key("alice"))
    second = lender.other.join(key("alice"))
    assert lender.one.evicted == [first]
    assert first.state is State.PARKED
    assert second.tap.name == first.tap.name
    assert [port.state for port in lender.ports] == [State.IN_USE]


def test_names_never_clash(lender: Lender) -> None:
    coming = [gevent.spawn(worker.join, key(None)) for _ in range(3) for worker in (lender.one, lender.other)]
    gevent.joinall(coming, raise_error=True)
    assert {client.get().tap.name for client in coming} == {f"ethws{number}" for number in range(6)}


def test_errors_come_back_as_what_they_are_with_their_hints(lender: Lender) -> None:
    with pytest.raises(DeviceError, match="cannot create lo"):
        lender.one.join(key("alice"), Profile(device="lo"))
    lender.ports.first.state = State.GONE
    with pytest.raises(NoPort, match="the server is stopping"):
        lender.one.join(key("alice"))
    lender.ports.first.state = State.FREE


def test_a_name_that_is_too_long_for_a_message_gets_no_port(lender: Lender) -> None:
    """The other process would take the worker for a broken one."""
    with pytest.raises(NoPort, match="longer than"):
        lender.one.join(key("x" * 20_000))
    lender.one.join(key("x" * 16_000))
    assert not lender.hung


def test_frames_pass_by_the_rules_which_are_put_in_before_the_first(lender: Lender, host: Host) -> None:
    port = lender.one.join(key("alice"), Profile(macs=2))
    heard = host.frames("br0")
    assert table_name("ethws0") not in nftables.handles()
    send(port, 1, 2, 3)
    passed = [heard.receive()[6:12] for _ in range(2)]
    assert passed == sorted(address_sets.addresses_in(table_name("ethws0"), ADDRESSES))
    assert port.filter.drops() == {"source-address": 1}


def test_addresses_are_counted_for_all_workers_together(lender: Lender) -> None:
    used: set[bytes] = set()
    for number, worker in enumerate((lender.one, lender.other) * 2):
        port = worker.join(key("alice"), Profile(macs=3))
        send(port, *range(number * 10, number * 10 + 5))
        used |= set(address_sets.addresses_in(table_name(port.tap.name), ADDRESSES))
        worker.ports.free(port)
        soon(lambda: all(port.state is State.FREE for port in lender.ports))
    assert len(used) == 3


def test_one_rate_is_for_the_connections_at_all_workers(lender: Lender) -> None:
    profile = Profile(connections=3, rate_up=8_000_000)
    ports = [lender.one.join(key("alice"), profile), lender.other.join(key("alice"), profile)]
    ports[0].pacer(8_000_000).wait(1_000_000, now := monotonic())
    assert ports[1].pacer(8_000_000).wait(0, now) == pytest.approx(0.99)
    # The debt stays when the connection ends, and another identity has none of it.
    lender.one.ports.free(ports[0])
    assert lender.one.join(key("alice"), profile).pacer(8_000_000).wait(0, now) == pytest.approx(0.99)
    assert lender.one.join(key("bob"), profile).pacer(8_000_000).wait(0, now) == 0
    # A rate that came by a new policy.
    later = lender.other.join(key("carol"))
    assert later.slot is None
    later.pacer(8_000_000).wait(2_000_000, now)
    assert lender.one.join(key("carol"), Profile(connections=2, rate_up=16_000)).pacer(8_000_000).wait(0, now) > 1


def test_rules_that_others_remove_are_put_back_before_the_next_frame(lender: Lender, host: Host) -> None:
    port = lender.one.join(key("alice"), Profile(drop=frozenset({"bpdu"})))
    sink = port.sink()
    sink.write_batch([])
    direct = sink.write_batch
    host.command("nft flush ruleset")
    # The sink is no more the TAP's own function: the next frame asks first.
    soon(lambda: sink.write_batch != direct)
    sink.write_batch([])
    assert table_name("ethws0") in nftables.handles()
    assert sink.write_batch == direct


def test_rules_that_are_lost_while_the_answer_is_on_its_way_are_asked_for_again(lender: Lender) -> None:
    port = lender.one.join(key("alice"))
    asked = []

    def ask(verb: str, values: object) -> dict[str, object]:
        asked.append(verb)
        if len(asked) == 1:
            port.filter.held()
        return {}

    port.ask = ask  # type: ignore[method-assign]
    port.filter.arm(bytes(6), lambda: None)
    assert asked == ["arm", "arm"]


def test_rules_that_cannot_be_put_back_end_the_session(lender: Lender) -> None:
    port = lender.one.join(key("alice"))
    lent = lender.ports.first
    soon(lambda: lent.filter.on_failure is not None)
    lent.filter.on_failure(DeviceError("cannot filter"))  # type: ignore[misc]
    soon(lambda: port._failure)
    # Before its session had begun, and after.
    for _ in range(2):
        reasons: list[Exception] = []
        port.on_failure(reasons.append)
        soon(lambda reasons=reasons: reasons)
        assert (type(reasons[0]), str(reasons[0])) == (DeviceError, "cannot filter")


def test_a_new_profile_is_in_force_when_apply_returns(lender: Lender) -> None:
    port = lender.one.join(key("alice"))
    sink = port.sink()
    sink.write_batch([])
    direct = sink.write_batch
    lender.one.ports.apply(port, Profile(macs=7))
    assert (port.profile, lender.ports.first.profile) == (Profile(macs=7), Profile(macs=7))
    assert lender.ports.first.filter.applied.rules.macs == 7  # type: ignore[union-attr]
    # Frames that came meanwhile waited for it.
    assert sink.write_batch != direct


def test_no_frame_passes_when_a_new_profile_cannot_be_in_force(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    port = lender.one.join(key("alice"))
    sink = port.sink()
    sink.write_batch([])

    def install(_: object) -> None:
        raise OSError(1, "no")

    monkeypatch.setattr(nftables.Table, "install", install)
    with pytest.raises(DeviceError, match="cannot filter"):
        lender.one.ports.apply(port, Profile(drop=frozenset({"bpdu"})))
    with pytest.raises(DeviceError, match="cannot filter"):
        sink.write_batch([])


def test_fewer_connections_end_surplus_ones_at_other_workers(lender: Lender) -> None:
    two, one = Profile(connections=2), Profile(connections=1)
    older, newer = lender.one.join(key("alice"), two), lender.other.join(key("alice"), two)
    bob = lender.one.join(key("bob"), two)
    reasons: list[Exception] = []
    older.on_failure(reasons.append)
    # Only the worker of the newer one has seen the new policy.
    lender.other.ports.apply(newer, one)
    soon(lambda: reasons)
    assert isinstance(reasons[0], ConnectionClosed)
    assert (str(reasons[0]), reasons[0].code) == ("the policy allows fewer connections", 1008)
    assert (newer._failure, bob._failure) == (None, None)
    lender.one.ports.free(older)
    # A parked one goes before one in use.
    again = lender.one.join(key("carol"), two)
    lender.one.ports.park(lender.one.join(key("carol"), two))
    lender.one.ports.apply(again, one)
    soon(lambda: [port.state for port in lender.ports if port.client.identity == "carol"] == [State.IN_USE])


def test_wrong_logins_are_counted_for_all_workers_together(lender: Lender) -> None:
    one, other = lender.one.ports.limiter, lender.other.ports.limiter
    now = monotonic()
    for _ in range(FREE_FAILURES):
        assert one.wait("192.0.2.1", now) == 0
        one.failed("192.0.2.1", now)
    assert one.wait("192.0.2.1", now) > 0
    assert other.wait("192.0.2.1", now) > 0
    assert other.wait("192.0.2.2", now) == 0
    # Who must wait is not asked for again and again.
    lender.server.limiter.wait = None  # type: ignore[assignment,method-assign]
    assert other.wait("192.0.2.1", now + 1) > 0


def test_sources_that_must_wait_are_forgotten_when_there_are_too_many(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_ports, "MAX_SOURCES", 2)
    limiter = lender.one.ports.limiter
    lender.server.limiter.wait = lambda address, now: 5.0  # type: ignore[method-assign]
    for number in range(4):
        limiter.wait(f"192.0.2.{number}", 0.0)
    assert list(limiter._until) == ["192.0.2.2", "192.0.2.3"]


def test_a_client_that_hangs_up_while_it_waits_gives_up_its_place(lender: Lender) -> None:
    near, far = gevent_pair()
    with near, far, anothers_turn():
        coming = gevent.spawn(lender.one.join, key("alice"), presence=Presence(near))
        soon(low_priority.waiting)
        far.close()
        with pytest.raises(ClientGone):
            coming.get()
        soon(lambda: not low_priority.waiting())
    assert [port.state for port in lender.ports] == [State.FREE]


def test_a_port_that_comes_when_its_client_is_gone_is_parked(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_ports, "TAKE_TIMEOUT", 0.001)
    take = lender.ports.take

    def slow(*args: object) -> object:
        found = take(*args)  # type: ignore[arg-type]
        gevent.sleep(0.01)
        return found

    monkeypatch.setattr(lender.ports, "take", slow)
    before = taps()
    with pytest.raises(NoPort, match="no answer"):
        lender.one.join(key("alice", "a"))
    soon(lambda: lender.ports.first.state is State.PARKED)
    assert taps() == before


def test_a_worker_without_descriptors_refuses_a_client_and_keeps_the_others(lender: Lender) -> None:
    first = lender.one.join(key("alice", "a"))
    second = lender.one.join(key("bob", "b"))
    lender.one.ports.park(second)
    soon(lambda: [port.state for port in lender.ports] == [State.IN_USE, State.PARKED])
    ends: list[Exception] = []
    first.on_failure(ends.append)
    before = taps()
    with none_left(), pytest.raises(DeviceError, match="Too many open files"):
        lender.one.join(key("bob", "b"))
    soon(lambda: [port.state for port in lender.ports] == [State.IN_USE, State.PARKED])
    assert taps() == before
    assert lender.one.join(key("bob", "b")).tap.name == second.tap.name
    assert [*ends, *lender.one.ended, *lender.hung] == []


def taps() -> int:
    """How many descriptors of TAPs are open."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{fd}") == "/dev/net/tun"
    return found


def test_the_end_of_the_other_process_ends_all_sessions(lender: Lender) -> None:
    port = lender.one.join(key("alice"))
    reasons: list[Exception] = []
    port.on_failure(reasons.append)
    lender.server.close()
    soon(lambda: lender.one.ended)
    assert lender.one.ended == ["the port process is gone"]
    assert [getattr(reason, "code", None) for reason in reasons] == [1012]
    # A client that comes now is not told to wait: gunicorn has other workers in a moment.
    for ask in (lambda: lender.one.join(key("bob")), lambda: lender.one.ports.limiter.wait("192.0.2.1", monotonic())):
        with pytest.raises(Refused, match="starts again") as refused:
            ask()
        assert (refused.value.status, refused.value.headers) == ("503 Service Unavailable", [])
    with pytest.raises(DeviceError, match="has ended"):
        port.sink().write_batch([])
    assert port.filter.drops() == {}


def test_stop_is_told_to_each_worker_once(lender: Lender) -> None:
    lender.server.stop()
    lender.server.stop()
    soon(lambda: lender.one.ended and lender.other.ended)
    assert lender.one.ended == lender.other.ended == ["the server is stopping"]


def test_another_release_is_an_error_at_the_start(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_ports, "VERSION", VERSION + 1)
    words = f"speaks version {VERSION} to its workers, and this worker {VERSION + 1}: two releases"
    ours, theirs = pair()
    lender.server.attach(ours)
    with pytest.raises(ChannelError, match=words):
        RemotePorts(theirs, lambda reason: None)


def test_a_worker_remembers_a_bounded_number_of_parked_ports(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_port, "PARKED_MAX", 2)
    ports = []
    for token in "abcde":
        ports.append(lender.one.join(key("alice", token), Profile(connections=5)))
        lender.one.ports.park(ports[-1])
    assert [port.state for port in ports] == [State.FREE] * 3 + [State.PARKED] * 2
    # One that is freed makes room.
    lender.one.ports.free(ports[3])
    assert [port.state for port in ports[3:]] == [State.FREE, State.PARKED]
    soon(lambda: [port.tap.name for port in lender.ports] == ["ethws0", "ethws1", "ethws2", "ethws4"])
    ports.append(lender.one.join(key("alice", "f"), Profile(connections=5)))
    lender.one.ports.park(ports[-1])
    assert [port.state for port in ports[4:]] == [State.PARKED] * 2
    # The clients have theirs all the same.
    soon(lambda: [port.state for port in lender.ports] == [State.PARKED] * 5)
    for token, port in zip("abcdef", ports, strict=True):
        if token != "d":
            assert lender.one.join(key("alice", token), Profile(connections=5)).tap.name == port.tap.name


def test_a_parked_port_is_free_here_when_it_is_there(host: Host) -> None:
    with lending(host, resume_timeout=0.01) as lender:
        port = lender.one.join(key("alice", "a"))
        lender.one.ports.park(port)
        assert port.state is State.PARKED
        soon(lambda: str(port.state) == str(State.FREE))
        soon(lambda: lender.ports.first.state is State.FREE)
        # One that cannot be known again is not parked at all.
        nobody = lender.one.join(key(None))
        lender.one.ports.park(nobody)
        assert nobody.state is State.FREE
        lender.one.ports.free(nobody)
