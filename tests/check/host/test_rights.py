"""What this process may do, and what the TAP driver knows."""

from __future__ import annotations

import fcntl
import os
import resource
from pathlib import Path

import pytest

from etherws.check.findings import Verdict
from etherws.check.host import rights
from etherws.check.host.rights import capabilities, open_files, tap
from etherws.errors import DeviceError
from etherws.server import scarcity
from etherws.tunnel import tap_device, tap_driver, tap_probe
from tests.lab.hosts import Host, until


def test_the_tap_device(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/proc/self/fd")
    with host.namespace.inside():
        found = list(tap())
        monkeypatch.setattr(tap_probe, "_takes", None)
        uso = tap_probe.takes_uso()
    # What it says is what a client and a server do.
    assert [each.verdict for each in found] == [Verdict.OK, Verdict.OK if uso else Verdict.NOTE]
    assert found[0].data == {"vnet_hdr": True}
    assert found[1].data == {"tso": True, "uso": uso}
    until(lambda: list(host.links()) == ["lo"], "the TAPs to be gone")
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize(("user", "verdict"), [(0, Verdict.FAILED), (1000, Verdict.FAILED)])
def test_no_tap_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, verdict: Verdict) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    (found,) = tap(str(tmp_path / "tun"))
    assert found.verdict is verdict
    assert "modprobe tun" in found.hint


def test_who_may_not_open_it_is_not_who_runs_etherws(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert [each.verdict for each in tap()] == [Verdict.SKIPPED]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert [each.verdict for each in tap()] == [Verdict.FAILED]


def test_an_old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", lambda *_: bytes(4))
    (found,) = tap("/dev/null")
    assert (found.verdict, found.found) == (Verdict.FAILED, "/dev/null: no vnet_hdr")


def test_no_tap_may_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", lambda *_: b"\xff" * 4)

    def refuse(_: str) -> int:
        raise DeviceError("cannot create it: run as root")

    monkeypatch.setattr(tap_device, "open_device", refuse)
    assert [each.verdict for each in tap("/dev/null")] == [Verdict.OK, Verdict.SKIPPED]


def test_a_driver_without_tso(monkeypatch: pytest.MonkeyPatch) -> None:
    def ioctl(fd: int, request: int, argument: object) -> bytes:
        if request == tap_driver.TUNSETOFFLOAD and argument:
            raise OSError(22, "Invalid argument")
        return b"\xff" * 4

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    monkeypatch.setattr(tap_device, "open_device", lambda _: os.open("/dev/null", os.O_RDONLY))
    assert [each.verdict for each in tap("/dev/null")] == [Verdict.OK, Verdict.WARNING]


@pytest.mark.parametrize(
    ("refused", "release", "why", "hint"),
    [(22, "6.1.0", "does not take 128", "Linux 6.9"), (5, "7.0.3", "with Linux 7.0.3", "Linux 7.1.5")],
)
def test_a_kernel_whose_udp_super_frames_are_not_used(
    monkeypatch: pytest.MonkeyPatch, refused: int, release: str, why: str, hint: str
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", lambda *_: b"\xff" * 4)
    monkeypatch.setattr(tap_device, "open_device", lambda _: os.open("/dev/null", os.O_RDONLY))
    monkeypatch.setattr(tap_probe, "_refusal", lambda _, segments: 22 if segments > 128 else refused)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "", release, "", "")))
    _, found = tap("/dev/null")
    assert (found.verdict, found.data) == (Verdict.NOTE, {"tso": True, "uso": False})
    assert why in found.found
    assert hint in found.hint


@pytest.mark.parametrize(
    ("effective", "user", "verdict", "words"),
    [
        ("000001ffffffffff", 0, Verdict.OK, "all that"),
        ("0000000000003000", 1000, Verdict.NOTE, "no CAP_NET_BIND_SERVICE: cannot listen on ports below 1024"),
        ("0000000000000000", 1000, Verdict.NOTE, "no CAP_NET_ADMIN: cannot make"),
        ("0000000000000400", 0, Verdict.FAILED, "no CAP_NET_ADMIN"),
        ("0000000000001400", 0, Verdict.WARNING, "no CAP_NET_RAW: cannot notice loops"),
        ("none", 0, Verdict.FAILED, "no CAP_NET_ADMIN"),
    ],
)
def test_capabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, effective: str, user: int, verdict: Verdict, words: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    status = "Name:\tx\n" + ("" if effective == "none" else f"CapEff:\t{effective}\n")
    (found,) = capabilities(status, tmp_path)
    assert found.verdict is verdict
    assert words in found.found


def test_low_ports_that_everyone_may_use(tmp_path: Path) -> None:
    (tmp_path / "net/ipv4").mkdir(parents=True)
    (tmp_path / "net/ipv4/ip_unprivileged_port_start").write_text("0\n")
    (found,) = capabilities("CapEff:\t0000000000003000\n", tmp_path)
    assert found.verdict is Verdict.OK


@pytest.mark.parametrize(
    ("hard", "verdict"),
    [(1 << 20, Verdict.OK), (resource.RLIM_INFINITY, Verdict.OK), (1024, Verdict.NOTE), (100, Verdict.WARNING)],
)
def test_open_files(hard: int, verdict: Verdict) -> None:
    (found,) = open_files((64, hard))
    assert found.verdict is verdict


def test_a_server_and_the_doctor_count_the_same() -> None:
    ours = (rights.PER_CLIENT, rights.CLIENTS, rights.OTHERS)
    assert ours == (scarcity.DESCRIPTORS, scarcity.CLIENTS_MAX, scarcity.OTHERS)


def test_this_process() -> None:
    assert len([*open_files(), *capabilities()]) == 2
