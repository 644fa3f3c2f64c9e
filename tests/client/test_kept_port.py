"""What the client finds of the process before it: its TAP as it was, and refusals of what cannot be used."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from etherws.client.kept_port import KeptPort, check
from etherws.client.local_end import LocalEnd
from etherws.errors import AlreadyLinked, DeviceError, SettingsError
from etherws.kernel import interfaces
from etherws.kernel.link_claim import LinkClaim
from etherws.kernel.rules import table_name
from etherws.kernel.state_file import StateFile
from etherws.kernel.store import HANDOVER, Store, from_environ
from etherws.settings import ClientSettings
from etherws.tunnel.tap import Tap
from tests.lab.hosts import Host
from tests.lab.lan import index_of, tables

SETTINGS = ClientSettings(bridge="br0", drop=("bpdu",), mtu=1400)
SERVERS = {"server:80/": "token-of-this-process"}


def local(settings: ClientSettings, store: Store, servers: dict[str, str] | None = None) -> LocalEnd:
    """The client's side of this machine."""
    return LocalEnd(settings, store, servers or SERVERS, lambda: "", lambda _: None)


def successor(store: Store) -> Store:
    """The store of the next process, if this one is killed now: it has copies of the descriptors, as systemd makes."""
    environ = dict[str, str]()
    for fd in store.tell(environ):
        environ[HANDOVER] = ",".join(
            f"{os.dup(fd)}:{name}" if number == str(fd) else f"{number}:{name}"
            for number, name in (entry.split(":", 1) for entry in environ[HANDOVER].split(","))
        )
    return from_environ(environ)


@pytest.fixture
def end(host: Host) -> Iterator[tuple[LocalEnd, Store]]:
    """A client's side, with a store, which is killed with the test: what it has open is closed in no order."""
    store = Store()
    with host.namespace.inside():
        found = local(SETTINGS, store)
        yield found, store
        with contextlib.suppress(DeviceError, OSError):
            found.close()


def killed(found: LocalEnd, store: Store) -> Store:
    """The first one ends as a killed process does: nothing is put back. Return the store of the next one."""
    following = successor(store)
    store.handing_over = True
    found.close()
    for fd in store.tell({}):
        os.close(fd)
    return following


def test_everything_of_the_interface_stays(host: Host, end: tuple[LocalEnd, Store]) -> None:
    first, store = end
    before = host.links()["ethws0"]
    since = first.tap.unconnected_since
    following = killed(first, store)
    assert "ethws0" in host.links()
    # Nobody else may link the bridge meanwhile; what the kernel drops is dropped.
    assert tables(host).keys() == {table_name("ethws0")}
    with contextlib.closing(local(SETTINGS, following, {"server:80/": "new", "other:80/": "other"})) as second:
        after = host.links()["ethws0"]
        for fact in ("address", "master", "mtu", "carrier_changes"):
            assert after.get(fact) == before.get(fact)
        assert (after["index"], after["flags"]) == (before["index"], before["flags"])
        assert second.tokens == {"server:80/": "token-of-this-process", "other:80/": "other"}
        assert second.tap.unconnected_since == since
        assert second.tap.mtu() == 1400
    # What the first one has made the second one removes.
    assert not {"ethws0", "br0"} & host.links().keys()
    assert not tables(host)


@pytest.mark.parametrize(
    ("changes", "name", "bridge", "mtu"),
    [
        ({"device": "lan%d"}, "lan0", "br0", 1400),
        ({"device": "ethws0"}, "ethws0", "br0", 1400),
        ({"bridge": "br7"}, "ethws0", "br7", 1400),
        ({"bridge": None}, "ethws0", "", 1400),
        ({"mtu": 1300}, "ethws0", "br0", 1300),
        ({"mtu": None}, "ethws0", "br0", 1500),
        ({"drop": ()}, "ethws0", "br0", 1400),
    ],
)
def test_what_the_user_has_changed_wins(
    host: Host, end: tuple[LocalEnd, Store], changes: dict[str, Any], name: str, bridge: str, mtu: int
) -> None:
    first, store = end
    before = first.tap.index
    with contextlib.closing(local(replace(SETTINGS, **changes), killed(first, store))) as second:
        assert (second.tap.name, interfaces.bridge_of(second.tap.index), second.tap.mtu()) == (name, bridge, mtu)
        assert (second.tap.index == before) == (name == "ethws0")
        assert bool(tables(host)) == (changes.get("drop") != ())
    assert not {"ethws0", "lan0", "br7"} & host.links().keys()


def test_what_others_changed_stays(host: Host, end: tuple[LocalEnd, Store]) -> None:
    first, store = end
    host.bridge("br9")
    index = first.tap.index
    with host.netlink() as route:
        route.link("set", index=index, master=index_of(host, "br9"))
        route.link("set", index=index, mtu=1350)
        route.link("set", index=index, state="down")
        route.link("set", index=index, ifname="renamed")
        route.link("set", index=index, state="up")
    with contextlib.closing(local(SETTINGS, killed(first, store))) as second:
        assert (second.tap.name, second.tap.index, second.tap.mtu()) == ("renamed", index, 1350)
        assert interfaces.bridge_of(index) == "br9"


def test_a_bridge_that_was_made_anew_meanwhile_is_joined(host: Host, end: tuple[LocalEnd, Store]) -> None:
    first, store = end
    following = killed(first, store)
    host.delete_link("br0")
    host.bridge("br0")
    with contextlib.closing(local(SETTINGS, following)) as second:
        assert interfaces.bridge_of(second.tap.index) == "br0"
    assert "br0" in host.links()


def test_no_other_client_gets_the_claim_meanwhile(host: Host, end: tuple[LocalEnd, Store]) -> None:
    first, store = end
    following = killed(first, store)
    with pytest.raises(AlreadyLinked, match="links br0 to server:80/ already"):
        LinkClaim().claim("br0", "ethws%d", SERVERS)
    with contextlib.closing(local(SETTINGS, following)):
        pass
    rival = LinkClaim()
    rival.claim("br0", "ethws%d", SERVERS)
    rival.close()


def broken(state: dict[str, Any] | None = None, **changes: Any) -> StateFile:
    """A state file of a client, with these changes."""
    file = StateFile()
    file.write({"version": 1, "role": "client", **(state or {}), **changes})
    return file


def released(tap: Tap) -> int:
    """The descriptor of a TAP that nobody uses here."""
    fd = tap.fileno()
    tap.release()
    return fd


def deleted() -> list[int]:
    """A TAP that was deleted, with its state."""
    tap = Tap()
    with interfaces.netlink("delete it") as route:
        route.link("del", index=tap.index)
    return [released(tap), broken().fd]


def with_state(fd: Callable[[], int]) -> Callable[[], list[int]]:
    """A TAP with this as its state."""
    return lambda: [released(Tap()), fd()]


def half_written() -> int:
    """A state that was never whole."""
    file = StateFile()
    os.pwrite(file.fd, b"etherws1 and no more", 0)
    return file.fd


def endless() -> int:
    """A file of 10 MB."""
    fd = os.memfd_create("state")
    os.ftruncate(fd, 10 << 20)
    return fd


BAD = {
    "deleted": (deleted, "is no interface that exists"),
    "another program's": (lambda: [os.memfd_create("other"), broken().fd], "is no interface that exists"),
    "a socket": (lambda: [socket.socket().detach(), broken().fd], "is no interface that exists"),
    "without state": (lambda: [released(Tap())], "it is not an interface with its state"),
    "state alone": (lambda: [broken().fd], "it is not an interface with its state"),
    "newer": (with_state(lambda: broken(version=2).fd), "its state is of a newer version of etherws"),
    "no version": (with_state(lambda: broken(version="1").fd), "its state is of a newer version of etherws"),
    "half written": (with_state(half_written), "its state is missing or broken"),
    "10 MB": (with_state(endless), "it is not an interface with its state"),
    "the server's": (with_state(lambda: broken(role="server").fd), "it is not a client's"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_costs_a_line(host: Host, case: str, caplog: pytest.LogCaptureFixture) -> None:
    make, words = BAD[case]
    with host.namespace.inside():
        fds = make()
        store = from_environ({HANDOVER: ",".join(f"{fd}:port-7" for fd in fds)})
        if case not in ("deleted", "another program's", "a socket"):
            with pytest.raises(SettingsError, match=words):
                check(
                    store,
                )
        with contextlib.closing(local(ClientSettings(), store)) as found:
            assert found.tap.name == "ethws0"
            assert "ethws1" not in host.links()
        assert [words in message for message in caplog.messages if "port-7" in message] == [True]
        for fd in fds:
            # Closed, or another file by now.
            with contextlib.suppress(OSError):
                assert "memfd:other" not in os.readlink(f"/proc/self/fd/{fd}")


def test_twice_the_same_costs_a_line(host: Host, end: tuple[LocalEnd, Store], caplog: pytest.LogCaptureFixture) -> None:
    fd = end[0].tap.fileno()
    number = os.dup(fd)
    entries = f"{number}:port-8,{number}:port-8,{broken().fd}:port-8,{os.dup(fd)}:port-9,{broken().fd}:port-9"
    kept = KeptPort(from_environ({HANDOVER: entries}), SETTINGS)
    assert kept.tap is not None
    assert [message for message in caplog.messages if "twice" in message] == [
        f"a descriptor was handed over that is not open, or twice: {number}:port-8",
        "port-9 of the process before cannot be used: ethws0 is there twice",
    ]
    os.close(released(kept.tap))


def test_the_same_interface_under_two_names_costs_a_line(
    host: Host, end: tuple[LocalEnd, Store], caplog: pytest.LogCaptureFixture
) -> None:
    # By several descriptors, as of a version with queues.
    first = end[0].tap.fileno()
    entries = [f"{os.dup(first)}:port-{name}" for name in (8, 8, 9, 9)]
    entries += [f"{broken().fd}:port-{name}" for name in (8, 9)]
    kept = KeptPort(from_environ({HANDOVER: ",".join(entries)}), SETTINGS)
    assert kept.tap is not None
    assert [message for message in caplog.messages if "port-" in message] == [
        "port-9 of the process before cannot be used: ethws0 is there twice"
    ]
    os.close(released(kept.tap))


def test_what_is_no_clients_is_dropped(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    with host.namespace.inside():
        store = from_environ({HANDOVER: f"{socket.socket().detach()}:listen,{socket.socket().detach()}:claims"})
        with contextlib.closing(local(SETTINGS, store)):
            assert caplog.messages == ["what was kept as listen is not used: it is not a client's"]


@pytest.mark.parametrize(
    "junk",
    [
        {"unconnected": 10**400},
        {"unconnected": float("nan")},
        {"was": [float("inf"), "br0"]},
        {"header": [float("inf"), 1]},
        {"header": [10**400, 1]},
    ],
    ids=lambda junk: next(iter(junk)),
)
def test_numbers_that_are_none_do_not_end_the_start(host: Host, junk: dict[str, Any]) -> None:
    """Else a client that finds them could not start again, ever."""
    with host.namespace.inside():
        fds = [released(Tap()), broken(**junk).fd]
        store = from_environ({HANDOVER: ",".join(f"{fd}:port-7" for fd in fds)})
        with contextlib.closing(local(ClientSettings(), store)) as found:
            assert found.tap.unconnected_since is None
