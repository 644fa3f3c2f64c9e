"""Opening a TAP: whose it is, and that it is the right one though names change hands."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from etherws.errors import DeviceError
from etherws.kernel import interfaces
from etherws.tunnel.offloads import Offload
from etherws.tunnel.tap import Tap
from etherws.tunnel.tap_device import forget_events
from etherws.tunnel.tap_driver import RENAMES_MAX
from etherws.tunnel.wire import VNET_BYTES
from tests.lab.flows import Wire, waiting
from tests.lab.frames import frame
from tests.lab.hosts import IFF_UP, PATIENCE, Host


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


def test_a_persistent_device_that_was_lent_keeps_what_its_owner_has_set(host: Host) -> None:
    host.command("ip tuntap add mine mode tap")
    with host.namespace.inside(), contextlib.closing(Tap("mine")) as owner:
        lent = Tap.adopt(os.dup(owner.fileno()), borrowed=True)
        lent.begin(offload=Offload.TCP)
        lent.close()
        # The header is still before each frame: without it, these bytes would be no frame.
        owner.write_batch([bytes(VNET_BYTES) + frame(14)])
        assert not owner.drops
        assert "mine" in host.links()


def test_a_device_that_was_lent_wakes_nobody_after_it_was_given_back(host: Host) -> None:
    """Its owner has it open still, and frames come: the kernel would tell of them for ever (epoll(7))."""
    with host.namespace.inside(), contextlib.closing(Tap()) as owner:
        lent = Tap.adopt(os.dup(owner.fileno()), borrowed=True)
        fd = lent.fileno()
        came = Event()
        lent.on_readable(came.set)
        heard = host.frames("ethws0")
        heard.send(frame(60))
        assert came.wait(PATIENCE)
        watched = f"/proc/self/fdinfo/{gevent.get_hub().loop.fileno()}"
        assert re.search(rf"tfd: +{fd} ", Path(watched).read_text())
        lent.close()
        assert not re.search(rf"tfd: +{fd} ", Path(watched).read_text())
        # A loop that never asked the kernel, or has no epoll, needs nothing.
        forget_events(fd)


def test_what_waits_since_the_last_session_is_not_carried_by_the_next_one(host: Host) -> None:
    with host.namespace.inside(), contextlib.closing(Tap("ethws0")) as tap:
        wire = Wire(host, "ethws0")
        tap.begin(offload=Offload.NONE)
        for number in range(50):
            wire.send(0, number)
        tap.begin(offload=Offload.TCP)
        wire.send(0, 50)
        assert waiting(tap) == [(0, 50)]
