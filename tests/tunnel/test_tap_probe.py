"""Whether this kernel takes UDP super-frames: what is asked of it, and what becomes of the answers."""

from __future__ import annotations

import contextlib
import errno
import os

import pytest

from etherws.errors import DeviceError
from etherws.tunnel import tap_device, tap_probe
from etherws.tunnel.tap import Tap
from tests.lab.hosts import Host, until


@pytest.fixture(autouse=True)
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has asked yet, in each test; afterwards is known what was known before."""
    monkeypatch.setattr(tap_probe, "_takes", None)


@pytest.mark.parametrize(
    ("most", "more", "release", "takes"),
    [
        (errno.EIO, errno.EINVAL, "6.12.1", True),
        # Somebody was quick to have it up.
        (0, errno.EINVAL, "6.12.1", True),
        # It takes no more than 64; it knows none; it checks nothing.
        (errno.EINVAL, errno.EINVAL, "6.6.20", False),
        (errno.EINVAL, errno.EINVAL, "6.1.0", False),
        (errno.EIO, errno.EIO, "6.5.0", False),
        (errno.EBADFD, errno.EBADFD, "6.12.1", False),
        (errno.EIO, errno.EINVAL, "7.0.3", False),
    ],
)
def test_what_a_kernels_answers_mean(
    monkeypatch: pytest.MonkeyPatch, most: int, more: int, release: str, takes: bool
) -> None:
    monkeypatch.setattr(tap_probe, "_refusal", lambda fd, segments: {128: most, 129: more}[segments])
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "", release, "", "")))
    tap_probe.ask(-1)
    assert tap_probe.takes_uso() is takes


@pytest.mark.parametrize(
    ("release", "spoiled"),
    [
        *(("6.19.9", False), ("7.0", True), ("7.0.0-rc1", True), ("7.0.2-6-pve", True), ("7.1.4", True)),
        *(("7.1.5", False), ("7.1.10-arch1", False), ("7.2", False), ("10.0.1", False), ("6.18.44-fc-v669", False)),
        *(("", False), ("x", False)),
    ],
)
def test_releases_whose_network_cards_spoil_them(release: str, spoiled: bool) -> None:
    assert tap_probe.spoils(release) is spoiled


def test_a_tap_that_is_made_answers_and_nothing_is_made_for_that(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with host.namespace.inside():
        with contextlib.closing(Tap("probed0")):
            assert tap_probe._takes is not None
            found = tap_probe.takes_uso()
            # Nothing went into the device.
            stats = host.links()["probed0"].get("stats64")
            assert (stats["rx_packets"], stats["rx_bytes"]) == (0, 0)
        monkeypatch.setattr(tap_probe, "_takes", None)
        # A persistent one may be up.
        host.command("ip tuntap add kept0 mode tap")
        with contextlib.closing(Tap("kept0")):
            assert tap_probe._takes is None
            assert tap_probe.takes_uso() is found
            until(lambda: not any(name.startswith("ewprobe") for name in host.links()), "the TAP to be gone")


def test_who_may_make_no_tap_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pattern: str) -> int:
        raise DeviceError(f"cannot create {pattern}")

    monkeypatch.setattr(tap_device, "open_device", refuse)
    assert not tap_probe.takes_uso()
    # It does not try again and again.
    monkeypatch.setattr(tap_device, "open_device", lambda pattern: pytest.fail(pattern))
    assert not tap_probe.takes_uso()


def test_another_process_may_know() -> None:
    tap_probe.tell(takes=True)
    assert tap_probe.takes_uso()
    tap_probe.ask(-1)
    assert tap_probe.takes_uso()
