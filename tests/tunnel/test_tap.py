"""Opening a TAP: whose it is, and that it is the right one though names change hands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from etherws.errors import DeviceError
from etherws.kernel import interfaces
from etherws.tunnel.tap import Tap
from etherws.tunnel.tap_driver import RENAMES_MAX
from tests.lab.hosts import IFF_UP, Host


def test_a_device_that_is_made_is_removed_and_a_persistent_one_stays(host: Host) -> None:
    host.command("ip tuntap add mine mode tap")
    with host.namespace.inside():
        for name, persistent in (("mine", True), ("ours", False)):
            with contextlib.closing(Tap(name)) as tap:
                assert (tap.name, tap.persistent) == (name, persistent)
                assert tap.index == host.links()[name]["index"]
        assert "mine" in host.links()
        assert "ours" not in host.links()


def when_asked(monkeypatch: pytest.MonkeyPatch, change: Callable[[str], None]) -> None:
    """Have something happen when the index of an interface is asked for."""
    index_of = interfaces.index_of

    def asked(name: str) -> int:
        change(name)
        return index_of(name)

    monkeypatch.setattr(interfaces, "index_of", asked)


def test_a_namesake_of_a_device_that_is_renamed_stays_untouched(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(name: str) -> None:
        """As udev may, at the wrong moment; and somebody makes another interface of the old name."""
        if name == "ethws0" and "moved" not in host.links():
            host.set_link("ethws0", ifname="moved")
            host.bridge("ethws0")
            host.set_link("ethws0", state="down")

    when_asked(monkeypatch, rename)
    with host.namespace.inside(), contextlib.closing(Tap("ethws0", 1400)) as tap:
        links = host.links()
        assert tap.name == "moved"
        assert tap.index == links["moved"]["index"]
        assert links["moved"].get("mtu") == 1400
        assert links["ethws0"].get("mtu") == 1500
        assert not links["ethws0"]["flags"] & IFF_UP


def test_a_device_that_never_keeps_a_name_is_an_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []

    def rename(name: str) -> None:
        names.append(name)
        host.set_link(name, ifname=f"name{len(names)}")

    when_asked(monkeypatch, rename)
    with host.namespace.inside(), pytest.raises(DeviceError, match="cannot find the new interface"):
        Tap("ethws0")
    assert len(names) == RENAMES_MAX
    assert set(host.links()) == {"lo"}


def test_a_device_that_is_deleted_at_once_is_an_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    when_asked(monkeypatch, host.delete_link)
    with host.namespace.inside(), pytest.raises(DeviceError, match="was it deleted"):
        Tap("ethws0")
