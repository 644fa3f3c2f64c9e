"""Ports that outlive their process: what the next one finds in the store, and what it does with it. Real TAPs."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import gevent
import pytest
import pytun

from etherws.access.policy import Profile
from etherws.errors import Refused
from etherws.features import Membership
from etherws.kernel import address_sets, interfaces, kept_filters, kernel_filters, nfnetlink, nftables
from etherws.kernel.rules import ADDRESSES, table_name
from etherws.kernel.state_file import StateFile
from etherws.kernel.store import Store
from etherws.server import ports as ports_module
from etherws.server.member import Member
from etherws.server.port import ClientKey, Port, State
from etherws.server.port_state import PortState
from etherws.server.ports import Ports
from etherws.settings import DeviceSettings
from etherws.tunnel.offloads import Offload
from etherws.tunnel.wire import VNET_BYTES
from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import PATIENCE, Host
from tests.lab.lan import source

ALICE, BOB = ClientKey("alice", "a" * 22, "192.0.2.1"), ClientKey("bob", "b" * 22, "192.0.2.2")
USUAL = Profile()


class LastingStore(Store):
    """A store as systemd has it: it keeps copies of the descriptors, whatever becomes of the process."""

    def __init__(self, found: dict[str, list[int]] | None = None) -> None:
        super().__init__(found)
        self.lasting = True
        self.copies: dict[str, list[int]] = {name: [os.dup(fd) for fd in fds] for name, fds in (found or {}).items()}

    def keep(self, name: str, *fds: int) -> None:
        if name not in self.copies:
            self.copies[name] = [os.dup(fd) for fd in fds]

    def drop(self, name: str) -> None:
        for fd in self.copies.pop(name, []):
            os.close(fd)

    def next(self) -> LastingStore:
        """What the next process has."""
        return LastingStore({name: [os.dup(fd) for fd in fds] for name, fds in self.copies.items()})

    def close(self) -> None:
        for name in list(self.copies):
            self.drop(name)


class Lives:
    """One server, process after process, in one machine."""

    def __init__(self, host: Host, **settings: Any) -> None:
        self.host = host
        self.settings: dict[str, Any] = {"bridge": "br0", **settings}
        self.store = LastingStore()
        self.ports = self._start()

    def _start(self) -> Ports:
        return Ports(DeviceSettings(**self.settings), 1000.0, self.store)

    def join(self, client: ClientKey, profile: Profile = USUAL) -> Port:
        found: list[Port] = []

        def evict() -> None:
            gevent.spawn(self.ports.free, found[0])

        port = self.ports.take(client, profile, evict)
        assert isinstance(port, Port)
        found.append(port)
        return found[0]

    def crash(self, meanwhile: Callable[[], object] = lambda: None, **settings: Any) -> None:
        """The process is killed, and another one starts; or `meanwhile` happens before that."""
        self._forget()
        meanwhile()
        self.settings.update(settings)
        before, self.store = self.store, self.store.next()
        before.close()
        self.ports = self._start()

    def hand_over(self) -> None:
        """The process ends in order, and the next one starts."""
        descriptors = [port.tap.fileno() for port in self.ports]
        self.ports.hand_over()
        # The end of the process closes its descriptors.
        for descriptor in descriptors:
            os.close(descriptor)
        before, self.store = self.store, self.store.next()
        before.close()
        self.ports = self._start()

    def _forget(self) -> None:
        """What the kernel does when a process is killed: close its descriptors. Nothing of it runs any longer."""
        ports, maker = self.ports, self.ports._maker
        maker._bridges.hand_over()
        maker._kernel_filters.hand_over()
        for port in list(ports):
            if port.timer:
                port.timer.kill()
            descriptor = port.tap.fileno()
            port.tap.release()
            os.close(descriptor)
            maker._kept._kept[port][1].close()

    def close(self) -> None:
        self.ports.close()
        assert not self.store.copies
        self.store.close()


@contextlib.contextmanager
def living(host: Host, **settings: Any) -> Iterator[Lives]:
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        lives = Lives(host, **settings)
        try:
            yield lives
        finally:
            lives.close()


@pytest.fixture
def lives(host: Host) -> Iterator[Lives]:
    with living(host) as made:
        yield made


def send(port: Port, *numbers: int) -> None:
    """Frames of the client, from these addresses."""
    port.sink().write_batch([bytes(VNET_BYTES) + frame(60, to=BROADCAST, source=source(n)) for n in numbers])


def interfaces_of(host: Host) -> dict[str, tuple[object, ...]]:
    """What must not change of each interface."""
    kept = ("address", "master", "mtu", "operstate", "carrier_changes")
    return {name: (link["index"], *map(link.get, kept)) for name, link in host.links().items()}


def settle(condition: Callable[[], object]) -> None:
    """Wait for the guard, or for the watch of bridges."""
    while not condition():
        gevent.sleep(0.01)


def addresses(port: Port) -> set[bytes]:
    return set(address_sets.addresses_in(table_name(port.tap.name), ADDRESSES))


def test_after_a_crash_each_client_finds_its_port_as_it_was(lives: Lives) -> None:
    profile = Profile(macs=2, isolated=True, rate_down=1_000_000)
    first, second = lives.join(ALICE, profile), lives.join(BOB)
    send(first, 1, 2, 3)
    used = addresses(first)
    assert len(used) == 2
    before = interfaces_of(lives.host)
    names = first.tap.name, second.tap.name
    lives.crash()
    assert [port.state for port in lives.ports] == [State.PARKED] * 2
    assert interfaces_of(lives.host) == before
    # Before anybody has come: what was used up stays so.
    assert addresses(next(iter(lives.ports))) == used
    first = lives.join(ALICE, profile)
    assert (first.tap.name, lives.join(BOB).tap.name) == names
    send(first, 4)
    assert addresses(first) == used
    assert interfaces.is_isolated(first.tap.index)
    assert interfaces.has_rate(first.tap.index, 1_000_000)


def test_a_stop_in_order_keeps_what_a_client_without_a_port_has_used(lives: Lives) -> None:
    profile = Profile(macs=2, rate_up=16_000)
    port = lives.join(ALICE, profile)
    send(port, 1, 2)
    used = addresses(port)
    port.pacer(16_000).wait(10_000, monotonic())
    lives.ports.free(port)
    lives.hand_over()
    again = lives.join(ALICE, profile)
    send(again, 3, 4)
    assert addresses(again) == used
    assert again.pacer(16_000).wait(0, monotonic()) > 1
    # It is told once: what counts from now on is what happens from now on.
    assert "owners" not in lives.store.copies


def test_whom_the_operator_keeps_out_stays_out_over_a_hand_over(lives: Lives) -> None:
    lives.join(BOB)
    lives.ports.gate.shut_out(["alice"], [], 600)
    for _ in range(2):
        lives.hand_over()
        with pytest.raises(Refused, match="has ended this client's tunnel"):
            lives.join(ALICE)
        # It is told once, as all that counts on.
        assert "gate" not in lives.store.copies
    lives.join(BOB)


def test_a_client_that_comes_with_other_rules_has_these_and_its_addresses(lives: Lives) -> None:
    lives.join(BOB)
    send(before := lives.join(ALICE, Profile(macs=2)), 1, 2)
    lives.crash()
    stricter = Profile(macs=2, drop=frozenset({"dhcp-server"}), isolated=True)
    port = lives.join(ALICE, stricter)
    # Its interface stays.
    assert port.tap.index == before.tap.index
    send(port, 3)
    assert port.filter.applied is not None
    assert port.filter.applied.rules.drop == {"dhcp-server"}
    assert interfaces.is_isolated(port.tap.index)
    assert len(addresses(port)) == 2


def test_the_rules_hold_before_anybody_comes(lives: Lives) -> None:
    port = lives.join(ALICE, Profile(macs=1, isolated=True, rate_down=1_000_000))
    send(port, 1)
    used = addresses(port)

    def others() -> None:
        nftables.remove(table_name("ethws0"))
        interfaces.isolate(port.tap.index, False)

    lives.crash(others)
    port = next(iter(lives.ports))
    settle(lambda: interfaces.is_isolated(port.tap.index))
    assert interfaces.has_rate(port.tap.index, 1_000_000)
    assert table_name("ethws0") in nftables.table_handles()
    # The guard watches: rules that others remove while it is parked are put back.
    lives.host.command("nft delete table netdev etherws-ethws0")
    settle(lambda: table_name("ethws0") in nftables.table_handles())
    assert used


def test_a_rate_that_was_removed_meanwhile_is_put_back(lives: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_filters, "LOOK_DELAY", 0.0)
    index = lives.join(ALICE, Profile(rate_down=1_000_000)).tap.index
    lives.crash(lambda: interfaces.set_rate(index, None))
    settle(lambda: interfaces.has_rate(index, 1_000_000))


def test_a_first_port_that_is_free_stays_the_first_and_forgets_the_rules_of_its_last_client(lives: Lives) -> None:
    lives.ports.free(lives.join(ALICE, Profile(isolated=True)))
    index = lives.host.links()["ethws0"]["index"]
    lives.crash()
    (first,) = lives.ports
    assert (first.state, first.tap.index, lives.ports.name) == (State.FREE, index, "ethws0")
    assert lives.join(BOB) is first
    assert not interfaces.is_isolated(index)


def test_a_client_that_cannot_be_recognised_gets_no_port_back(lives: Lives) -> None:
    first, second = lives.join(ClientKey()), lives.join(ClientKey())
    lives.crash()
    assert [(port.tap.name, port.state) for port in lives.ports] == [(first.tap.name, State.FREE)]
    assert second.tap.name not in lives.host.links()


def test_more_ports_than_are_parked_otherwise_are_kept(lives: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports_module, "PARKED_MAX", 1)
    clients = [ClientKey(name, name * 22) for name in "abc"]
    names = [lives.join(client).tap.name for client in clients]
    lives.crash()
    assert [lives.join(client).tap.name for client in clients[:2]] == names[:2]
    # Those that are parked from now on are counted as ever.
    for port in list(lives.ports)[:2]:
        lives.ports.park(port)
    assert sorted(port.state.value for port in lives.ports) == ["free", "parked", "parked"]


def test_a_port_is_removed_though_somebody_else_has_its_descriptor(lives: Lives) -> None:
    lives.join(ALICE)
    second = lives.join(BOB)
    copies = [os.dup(fd) for fd in lives.store.copies[f"port-{second.tap.index}"]]
    lives.ports.free(second)
    assert "ethws1" not in lives.host.links()
    for fd in copies:
        os.close(fd)


# Settings that changed meanwhile.


def test_another_bridge_is_joined(lives: Lives, caplog: pytest.LogCaptureFixture) -> None:
    lives.join(ALICE)
    lives.crash(bridge="br1")
    links = lives.host.links()
    assert links["ethws0"].get("master") == links["br1"]["index"]
    assert "ethws0 joins br1, the bridge that is named for it now" in caplog.text
    assert lives.join(BOB).tap.name == "ethws1"
    lives.host.delete_link("br0")


def test_another_mtu_is_set_and_one_that_somebody_has_set_stays(lives: Lives) -> None:
    lives.crash(mtu=1400)
    assert lives.host.links()["ethws0"].get("mtu") == 1400
    lives.host.set_link("ethws0", mtu=1300)
    lives.crash()
    assert lives.host.links()["ethws0"].get("mtu") == 1300


def test_another_device_pattern_makes_the_ports_anew(lives: Lives, caplog: pytest.LogCaptureFixture) -> None:
    lives.join(ALICE)
    lives.join(BOB)
    lives.crash(device="lan%d")
    assert set(lives.host.links()) == {"lo", "br0", "lan0"}
    assert "ethws1 is removed: --device is lan%d now, and was ethws%d" in caplog.text
    assert set(lives.store.copies) == {f"port-{lives.host.links()['lan0']['index']}"}


def test_a_bridge_that_was_made_here_goes_at_the_last_stop_only(host: Host) -> None:
    with living(host) as lives:
        index = host.links()["br0"]["index"]
        lives.hand_over()
        assert host.links()["br0"]["index"] == index
    assert set(host.links()) == {"lo"}


# What others do meanwhile.


def test_interfaces_that_were_deleted_are_left_out(lives: Lives, caplog: pytest.LogCaptureFixture) -> None:
    lives.join(ALICE)
    second = lives.join(BOB)

    def delete() -> None:
        lives.host.delete_link("ethws0")

    lives.crash(delete)
    # The first port is missing, and others are there.
    assert [port.tap.name for port in lives.ports] == ["ethws0", "ethws1"]
    assert lives.join(BOB).tap.index == second.tap.index
    assert "is no interface that exists" in caplog.text
    assert "(it was ethws0)" in caplog.text


def test_an_interface_that_was_renamed_is_known_and_its_rules_go_along(lives: Lives) -> None:
    port = lives.join(ALICE, Profile(macs=1))
    send(port, 1)
    used = addresses(port)
    lives.crash(lambda: lives.host.command("ip link set ethws0 name uplink"))
    (port,) = lives.ports
    assert (port.tap.name, addresses(port)) == ("uplink", used)
    assert set(nftables.table_handles()) == {table_name("uplink")}
    assert lives.join(ALICE, Profile(macs=1)) is port


def test_an_interface_in_another_namespace_is_left_there(lives: Lives) -> None:
    with contextlib.closing(Host()) as guest:
        lives.join(BOB)
        port = lives.join(ALICE)

        def move() -> None:
            with lives.host.netlink() as route:
                route.link("set", index=port.tap.index, net_ns_fd=guest.namespace.fileno())

        lives.crash(move)
        assert "ethws1" in guest.links()
        assert port.tap.index not in lives.ports._maker._bridges._members
        # Nobody asked for its rules, so its client has it there.
        assert lives.join(ALICE).tap.name == "ethws1"


def test_ports_whose_bridge_was_deleted_join_it_when_it_is_made_again(lives: Lives) -> None:
    lives.join(ALICE)
    lives.join(BOB)
    lives.crash(lambda: lives.host.delete_link("br0"))
    links = lives.host.links
    settle(lambda: all(links()[name].get("master") == links()["br0"]["index"] for name in ("ethws0", "ethws1")))


def test_an_interface_that_somebody_has_taken_out_stays_out(lives: Lives, caplog: pytest.LogCaptureFixture) -> None:
    lives.join(ALICE)
    lives.crash(lambda: lives.host.command("ip link set ethws0 nomaster"))
    settle(lambda: "has taken ethws0 out of br0; it stays out" in caplog.text)
    assert lives.host.links()["ethws0"].get("master") is None


# What is not ours, or broken.


def refuse(lives: Lives, caplog: pytest.LogCaptureFixture, name: str, *fds: int) -> str:
    """What the next process says of a bundle that is no port, which it must not keep."""
    lives.store.copies[name] = list(fds)
    lives.crash()
    assert name not in lives.store.copies
    assert lives.ports.name == "ethws0"
    return caplog.text


def written(**changes: Any) -> int:
    """A state that is right but for the changes."""
    state = PortState(first=False, index=1, name="x0", header=(12, 1), device="ethws%d", in_use=True, identity="eve")
    return state_file({**state.to_values(), **changes})


def state_file(values: dict[str, Any]) -> int:
    file = StateFile()
    file.write(values)
    return file.fd


def tap() -> int:
    """A TAP whose first process has gone."""
    device = pytun.TunTapDevice(name="x0", flags=pytun.IFF_TAP | pytun.IFF_NO_PI)
    fd = os.dup(device.fileno())
    device.close()
    return fd


def test_descriptors_of_another_program_are_refused(lives: Lives, caplog: pytest.LogCaptureFixture) -> None:
    pipe = os.pipe()
    one, other = socket.socketpair()
    for number, fd in enumerate((*pipe, one.detach(), other.detach(), os.open("/dev/null", os.O_RDONLY))):
        said = refuse(lives, caplog, f"port-9{number}", fd, written())
        assert f"port-9{number} of the process before cannot be used: descriptor" in said


def test_a_tun_is_refused(lives: Lives, caplog: pytest.LogCaptureFixture) -> None:
    device = pytun.TunTapDevice(name="x1", flags=pytun.IFF_TUN | pytun.IFF_NO_PI)
    fd = os.dup(device.fileno())
    device.close()
    assert "x1 is no TAP" in refuse(lives, caplog, "port-9", fd, written())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "of a newer version of etherws"),
        ({"role": "client"}, "it is not a server's"),
        ({"index": "7"}, "index that is out of range"),
        ({"device": "a b"}, "not a valid interface name"),
    ],
)
def test_states_that_are_not_for_us_are_refused(
    lives: Lives, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], words: str
) -> None:
    assert words in refuse(lives, caplog, "port-9", tap(), written(**changes))
    assert "x0" not in lives.host.links()


def test_a_tap_without_a_whole_state_is_refused(lives: Lives, caplog: pytest.LogCaptureFixture) -> None:
    assert "not an interface with its state" in refuse(lives, caplog, "port-91", tap())
    large = os.memfd_create("large")
    os.ftruncate(large, 10 << 20)
    caplog.clear()
    assert "not an interface with its state" in refuse(lives, caplog, "port-92", tap(), large)
    assert "its state is missing or broken" in refuse(lives, caplog, "port-93", tap(), StateFile().fd)
    half = written()
    os.pwrite(half, b"?", 40)
    caplog.clear()
    assert "its state is missing or broken" in refuse(lives, caplog, "port-94", tap(), half)


def test_a_state_by_another_user_is_refused(
    lives: Lives, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = written()
    os.fchown(theirs, 12345, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert "written by another user, 12345" in refuse(lives, caplog, "port-9", tap(), theirs)


def test_the_same_interface_twice_is_one(lives: Lives, caplog: pytest.LogCaptureFixture) -> None:
    port = lives.join(ALICE)
    state = next(iter(lives.ports._maker._kept._kept.values()))[1].read()
    assert state
    said = refuse(lives, caplog, "port-9", os.dup(port.tap.fileno()), state_file(state))
    assert "port-9 of the process before cannot be used: ethws0 is there twice" in said
    assert lives.join(ALICE).tap.index == port.tap.index


def test_of_two_first_ports_one_is_a_further_one(lives: Lives) -> None:
    lives.join(ALICE)
    lives.store.copies["port-9"] = [tap(), written(first=True)]
    lives.crash()
    assert [port.tap.name for port in lives.ports] == ["x0", "ethws0"] or lives.ports.name in ("x0", "ethws0")
    assert len(list(lives.ports)) == 2
    assert sum(port is lives.ports.first for port in lives.ports) == 1


@pytest.mark.parametrize("name", ["ethws0", "e"])
def test_addresses_that_look_like_a_place_for_a_name_stay_what_they_are(lives: Lives, name: str) -> None:
    # 3a is the colon.
    listed = "3a:3a:3a:3a:3a:3a"
    profile = Profile(macs=frozenset({listed, "02:00:00:00:00:01"}))
    lives.join(ALICE, profile)
    lives.crash(lambda: lives.host.set_link("ethws0", ifname=name))
    (port,) = lives.ports
    assert addresses(port) == {bytes.fromhex(text.replace(":", "")) for text in ("02:00:00:00:00:01", listed)}


def test_rules_that_cannot_be_put_in_all_at_once_are_put_in_one_by_one(
    lives: Lives, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ports = [lives.join(ClientKey(name, name * 22), Profile(macs=1)) for name in "abc"]
    for number, port in enumerate(ports, 1):
        send(port, number)
    before = [addresses(port) for port in ports]
    whole = nfnetlink.transact

    def refused(requests: list[bytes]) -> None:
        if len(requests) > 30:
            raise OSError(105, "No buffer space available")
        whole(requests)

    monkeypatch.setattr(kept_filters, "transact", refused)
    lives.crash()
    assert [addresses(port) for port in lives.ports] == before


def test_a_link_is_founded_anew_on_its_port_though_its_first_connection_was_lost(host: Host) -> None:
    client, profile = ClientKey("alice", "a" * 22), Profile(bridge="br0")
    with living(host) as lives:
        # The first port is another's: this one is for several connections only because of its link.
        lives.join(BOB)
        for number, end in enumerate((lives.crash, lives.hand_over)):
            link = Membership(0, 2, f"{number:022}", new=True)
            founder, other = (
                lives.ports.take(client, profile, lambda: None, membership=each)
                for each in (link, link._replace(member=1, new=False))
            )
            name = founder.tap.name
            for member in (founder, other):
                member.began(lambda: None)
            lives.ports.park(founder)
            # What the process had open is closed by its end.
            if end == lives.crash:
                assert isinstance(founder, Member)
                for place in founder.members._places.values():
                    place.queue.close()
                other.tap.close()
            end()
            # It is not known any more.
            with pytest.raises(Refused, match="does not have the link"):
                lives.ports.take(client, profile, lambda: None, membership=link._replace(new=False))
            again = lives.ports.take(client, profile, lambda: None, membership=link._replace(id="n" * 22))
            assert (again.tap.name, again.membership) == (name, Membership(0, 2, "n" * 22, new=True))
            again.tap.begin(offload=Offload.TCP)
            send(next(iter(lives.ports)), 1)
            gevent.get_hub().wait(again.tap._readable)
            lives.ports.park(again)
