"""An interface that is moved to another network namespace, as for a container, or renamed, while etherws runs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import Host, Process, until
from tests.lab.lan import tables
from tests.lab.peer import Peer, masked, request
from tests.lab.policy_lan import Lan, closed, hears, says

#: How a process starts is not what is tested here.
pytestmark = pytest.mark.usefixtures("forks_etherws")

TOKEN = "r" * 22


@pytest.fixture
def guest(network: None) -> Iterator[Host]:
    """A container: another network namespace."""
    with contextlib.closing(Host()) as machine:
        yield machine


def move(host: Host, guest: Host, name: str = "ethws0") -> None:
    """Move the interface, and bring it up there."""
    with host.netlink() as route:
        route.link("set", index=route.link_lookup(ifname=name)[0], net_ns_fd=guest.namespace.fileno())
    guest.set_link(name, state="up")


def joined(host: Host, token: str = TOKEN) -> Peer:
    peer = Peer(host)
    peer.say(request(Etherws_Resume=token))
    assert peer.head().startswith(b"HTTP/1.1 101 ")
    return peer


def carries(peer: Peer, host: Host, name: str = "ethws0", seed: int = 0) -> None:
    """Frames pass between the peer and the interface, both ways."""
    frames = host.frames(name)
    says(peer, frame(100, to=BROADCAST, seed=seed))
    assert frames.receive() == frame(100, to=BROADCAST, seed=seed)
    frames.send(frame(200, seed=seed))
    hears(peer, frame(200, seed=seed))


def stranger(host: Host, name: str, index: int) -> None:
    """Somebody else makes an interface with the name and the index that ours had."""
    with host.netlink() as route:
        route.link("add", ifname=name, kind="bridge", index=index)


def server(host: Host, *options: str) -> Process:
    process = host.etherws("server", "--foreground", "--debug", "--address", "127.0.0.1", *options)
    process.says("listening")
    return process


@pytest.mark.parametrize("when", ["before the first frame", "between frames"])
def test_a_session_goes_on_in_another_namespace(host: Host, guest: Host, when: str) -> None:
    serving = server(host)
    peer = joined(host)
    if when == "between frames":
        carries(peer, host)
    index = host.links()["ethws0"]["index"]
    move(host, guest)
    stranger(host, "ethws0", index)
    carries(peer, guest, seed=1)
    # A client that comes back gets its port.
    peer.reset()
    serving.says("left ethws0")
    again = joined(host)
    serving.says("joined on ethws0", times=2)
    carries(again, guest, seed=2)
    serving.says("ethws0 is in another network namespace")
    assert "Traceback" not in serving.output
    # The stranger stays as it was, and nothing of ours is left behind.
    serving.stop()
    until(lambda: set(guest.links()) == {"lo"}, "the interface to go")
    assert host.links()["ethws0"]["index"] == index
    assert not host.links()["ethws0"]["flags"] & 1
    assert tables(host) == {}


def test_a_second_client_is_served_while_the_first_interface_is_away(host: Host, guest: Host) -> None:
    server(host, "--bridge", "br0", "--mtu", "1400")
    peer = joined(host)
    move(host, guest)
    carries(peer, guest)
    other = joined(host, "o" * 22)
    until(lambda: "ethws1" in host.links() or "ethws0" in host.links(), "a second interface")
    name = next(name for name in host.links() if name.startswith("ethws"))
    assert host.links()[name].get("mtu") == 1400
    carries(other, host, name)


def test_an_interface_that_comes_back_is_as_before(host: Host, guest: Host) -> None:
    serving = server(host)
    peer = joined(host)
    carries(peer, host)
    # Its index is taken meanwhile: it gets another one.
    index = host.links()["ethws0"]["index"]
    move(host, guest)
    stranger(host, "taken", index)
    carries(peer, guest, seed=1)
    until(lambda: not tables_of(host), "its rules to go")
    move(guest, host)
    serving.says("ethws0 is in this network namespace again")
    assert host.links()["ethws0"]["index"] != index
    carries(peer, host, seed=2)
    assert set(tables_of(host)) == {"etherws-ethws0"}


def tables_of(host: Host) -> dict[str, int]:
    with host.namespace.inside():
        return tables(host)


@pytest.mark.parametrize("rule", ['drop = ["bpdu"]', "macs = 3", 'addresses = ["10.0.0.0/8"]'])
def test_no_frame_passes_where_rules_cannot_be_watched(host: Host, guest: Host, tmp_path: Path, rule: str) -> None:
    lan = Lan(host, tmp_path, f"[client.alice]\n{rule}\n[client.bob]\n")
    peer = lan.join("alice", Etherws_Resume=TOKEN)
    source = frame(100, to=BROADCAST)
    says(peer, source)
    lan.server.says("joined on ethws0")
    until(lambda: tables_of(host), "the rules")
    move(host, guest)
    assert closed(peer)[0] == 1011
    lan.server.says("left ethws0 after ")
    # Which of the two is said depends on what looks for the interface first.
    assert re.search(
        "ethws0 is in another network namespace, where the rules of its client cannot be watched"
        "|was it deleted, or moved to another network namespace",
        lan.server.output,
    )
    # The next time it gets another interface, in the bridge and with its rules.
    again = lan.join("alice", Etherws_Resume=TOKEN)
    says(again, source)
    until(lambda: tables_of(host), "the rules at the new interface")


def test_a_client_with_rules_is_refused_without_another_interface(host: Host, guest: Host, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[default]\nconnect = true\ndrop = ["bpdu"]\n')
    serving = server(host, "--policy", str(policy))
    move(host, guest)
    peer = Peer(host)
    peer.say(request())
    assert peer.head().startswith(b"HTTP/1.1 503 ")
    serving.says("ethws0 is in another network namespace")
    move(guest, host)
    carries(joined(host), host)


def test_an_interface_that_is_renamed_goes_on_under_its_name(host: Host) -> None:
    serving = server(host)
    peer = joined(host)
    carries(peer, host)
    host.command("ip link set ethws0 name lan0")
    carries(peer, host, "lan0", seed=1)
    peer.say(masked(0x88, b"\x03\xe8"))
    serving.says("left lan0 after ")
    carries(joined(host), host, "lan0", seed=2)
    serving.says("joined on lan0")
    serving.stop()
    assert set(host.links()) == {"lo"}


def test_a_client_whose_interface_is_moved_or_renamed_goes_on(hosts: tuple[Host, Host], guest: Host) -> None:
    one, other = hosts
    serving = one.etherws("server", "--foreground")
    serving.says("listening")
    client = other.etherws(
        "client", "--foreground", "ws://192.0.2.1/", "--mtu", "1400", "--carrier-timeout", "300ms",
        "--retry-interval", "50ms", "--max-retry-interval", "50ms",
    )  # fmt: skip
    client.says("connected to ws")
    index = other.links()["ethws0"]["index"]
    move(other, guest)
    stranger(other, "ethws0", index)
    ends = one.frames("ethws0"), guest.frames("ethws0")
    for seed in range(2):
        for sender, receiver in (ends, ends[::-1]):
            sender.send(frame(100, seed=seed))
            assert receiver.receive() == frame(100, seed=seed)
        if not seed:
            serving.stop()
            client.says("lost")
            until(lambda: guest.links()["ethws0"].get("carrier") == 0, "its carrier to go")
            guest.set_link("ethws0", ifname="lan0")
            serving = one.etherws("server", "--foreground")
            serving.says("joined")
            client.says("lan0 is up, connected to ws")
            ends = one.frames("ethws0"), guest.frames("lan0")
    client.stop()
    until(lambda: set(guest.links()) == {"lo"}, "the interface to go")
    assert other.links()["ethws0"]["index"] == index


def test_a_client_does_not_let_the_far_lan_in_where_its_rules_cannot_be_watched(
    hosts: tuple[Host, Host], guest: Host
) -> None:
    one, other = hosts
    one.etherws("server", "--foreground").says("listening")
    client = other.etherws("client", "--foreground", "ws://192.0.2.1/", "--drop", "dhcp-server")
    client.says("connected to ws")
    move(other, guest)
    frames = one.frames("ethws0")

    def ended() -> bool:
        frames.send(frame(100))
        return not client.running

    until(ended, "the client to end")
    assert "ethws0 is in another network namespace, where the rules of" in client.output
    assert set(guest.links()) == {"lo"}
    assert tables_of(other) == {}
