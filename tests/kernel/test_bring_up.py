"""An interface that comes up in its bridge, and what is said if the kernel refuses a part of that."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from etherws.errors import DeviceError
from etherws.kernel import bring_up, interfaces, links
from tests.lab.hosts import Host

ADDRESS = "fe:00:00:00:00:01"


@pytest.fixture
def index(host: Host) -> Iterator[int]:
    """An interface that is down, in the namespace of the test."""
    with host.netlink() as route:
        route.link("add", ifname="a", kind="veth", peer={"ifname": "b"})
    with host.namespace.inside():
        yield interfaces.index_of("a")


def test_it_is_up_in_its_bridge(host: Host, index: int) -> None:
    host.bridge("br0")
    bridge = interfaces.index_of("br0")
    bring_up.set_up(index, 1400, autoconfigure=False, address="02:00:00:00:00:01", bridge=bridge)
    assert links.get(index) == (index, "a", 1400, True, bridge, ADDRESS, False)
    # Again, and nothing is new.
    bring_up.set_up(index, 1400, address=ADDRESS, bridge=bridge)
    bring_up.set_up(index)
    assert links.get(index) == (index, "a", 1400, True, bridge, ADDRESS, False)


def test_without_an_address_it_keeps_its_own_but_for_the_first_byte(host: Host, index: int) -> None:
    host.bridge("br0")
    before = links.get(index).address
    bring_up.set_up(index, bridge=interfaces.index_of("br0"))
    assert links.get(index).address == interfaces.as_port(before)


@pytest.mark.parametrize("bridge", [False, True], ids=["alone", "bridge"])
def test_what_the_kernel_refuses_is_named(host: Host, index: int, bridge: bool) -> None:
    host.bridge("br0")
    into = interfaces.index_of("br0") if bridge else None
    with pytest.raises(DeviceError, match="cannot set the MTU of a to 4294967295: Invalid argument; its driver"):
        bring_up.set_up(index, 2**32 - 1, address=ADDRESS, bridge=into)
    with pytest.raises(DeviceError, match="cannot give a the address 01:00:00:00:00:01: Cannot assign"):
        bring_up.set_up(index, address="01:00:00:00:00:01")
    with pytest.raises(DeviceError, match="cannot put a into lo: Operation not supported; it is no bridge"):
        bring_up.set_up(index, address=ADDRESS, bridge=1)
    with pytest.raises(DeviceError, match="cannot put a into the bridge of index 4711, which is gone: "):
        bring_up.set_up(index, address=ADDRESS, bridge=4711)
    with pytest.raises(DeviceError, match="cannot find interface 4711: No such device"):
        bring_up.set_up(4711)


def test_a_kernel_without_ipv6_has_nothing_to_set(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    change = links.change_request
    monkeypatch.setattr(
        links,
        "change_request",
        lambda index, *, ipv6_address=True, **values: change(index if ipv6_address else 4711, **values),
    )
    bring_up.set_up(index, autoconfigure=False, address=ADDRESS)
    assert links.get(index).up


def test_if_nothing_can_be_sent_at_once_it_is_said_why(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(requests: object) -> list[OSError | None]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(links, "send_all", refuse)
    with contextlib.suppress(OSError), pytest.raises(DeviceError, match="cannot bring up a: Too many open files"):
        bring_up.set_up(index, address=ADDRESS, bridge=1)
