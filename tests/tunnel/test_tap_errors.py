"""Why a TAP cannot be opened: each cause has its own words."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

import pytest

from etherws.errors import DeviceError
from etherws.tunnel import tap_errors
from etherws.tunnel.tap import Tap
from tests.lab.hosts import Host


def test_who_has_the_tap_is_named(host: Host) -> None:
    with host.namespace.inside(), contextlib.closing(Tap("mine")), pytest.raises(DeviceError) as caught:
        Tap("mine")
    assert str(caught.value).startswith("cannot create mine: Device or resource busy; ")
    assert f" (process {os.getpid()}) has it; stop that, or choose another name by --device" in str(caught.value)


def test_one_of_the_same_name_in_another_network_namespace_has_another_user(hosts: tuple[Host, Host]) -> None:
    code = (
        "import time; from etherws.tunnel.tap import Tap; tap = Tap('alike'); print('open', flush=True); time.sleep(60)"
    )
    holder = hosts[0].run(sys.executable, "-c", code)
    holder.says("open")
    with hosts[0].namespace.inside():
        assert tap_errors.user_of("alike").endswith(f"(process {holder.pid})")
    with hosts[1].namespace.inside():
        assert tap_errors.user_of("alike") == ""


def test_a_tun_is_no_tap(monkeypatch: pytest.MonkeyPatch) -> None:
    # tun_flags of 'ip tuntap add NAME mode tun': IFF_TUN and IFF_NO_PI.
    monkeypatch.setattr(tap_errors, "_attribute", lambda _, attribute, __: 0x1001 if attribute == "tun_flags" else 0)
    message = tap_errors.explained(errno.EINVAL, "layer3")
    assert "it is a TUN, which has no Ethernet; choose another name by --device" in message


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (
            errno.ENOENT,
            "cannot open /dev/net/tun: No such file or directory; load the kernel's driver by 'modprobe tun'",
        ),
        (errno.ENXIO, "cannot open /dev/net/tun: No such device or address; load the kernel's driver"),
        (errno.EACCES, "cannot open /dev/net/tun: Permission denied; run as root, or make /dev/net/tun readable"),
        (errno.EPERM, "cannot create none0: Operation not permitted; run as root or with CAP_NET_ADMIN; a container"),
        (errno.EBUSY, "cannot create none0: Device or resource busy; another process has it; stop that"),
        (errno.EINVAL, "cannot create none0: Invalid argument; an interface of another kind has that name"),
        (errno.EIO, "cannot create none0: Input/output error; see the kernel's log"),
    ],
)
def test_each_error_says_what_to_try(number: int, words: str) -> None:
    assert tap_errors.explained(number, "none0").startswith(words)


def test_a_persistent_taps_owner_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap_errors, "_attribute", lambda _, attribute, __: 1234 if attribute == "owner" else 0)
    message = tap_errors.explained(errno.EPERM, "mine")
    assert message.endswith("it belongs to the user with the number 1234; run as that user, or as root")


def test_a_container_that_forbids_the_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> int:
        raise PermissionError(errno.EPERM, "no")

    def missing(*_: object) -> int:
        raise FileNotFoundError(errno.ENOENT, "no")

    monkeypatch.setattr(os, "open", forbidden)
    message = tap_errors.explained(errno.EPERM, "ethws%d")
    assert message.startswith("cannot open /dev/net/tun: Operation not permitted; this container may not use it")
    monkeypatch.setattr(os, "open", missing)
    assert "CAP_NET_ADMIN" in tap_errors.explained(errno.EPERM, "ethws%d")
