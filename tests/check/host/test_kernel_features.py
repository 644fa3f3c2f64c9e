"""What the kernel has, and how it is set."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from etherws.check.findings import Finding, Verdict
from etherws.check.host import kernel_features
from etherws.check.host.kernel_features import bridge_family, congestion, conntrack, filters, forwarding, slow_start
from etherws.errors import DeviceError
from etherws.kernel import port_tables


def write(root: Path, **values: str) -> Path:
    """Settings of net/ipv4, or in a folder of netfilter's."""
    for name, value in values.items():
        path = root / "net" / ("netfilter" if name.startswith("nf_") else "ipv4") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    return root


@pytest.mark.parametrize(
    ("available", "module", "verdict", "words"),
    [
        ("reno cubic bbr", "", Verdict.OK, "is there; TCP's default is cubic"),
        ("reno cubic", "modules.dep", Verdict.NOTE, "a module that is not loaded"),
        ("reno cubic", "modules.builtin", Verdict.NOTE, "a module that is not loaded"),
        ("reno cubic", "", Verdict.NOTE, "does not have it"),
    ],
)
def test_bbr(tmp_path: Path, available: str, module: str, verdict: Verdict, words: str) -> None:
    write(tmp_path, tcp_congestion_control="cubic", tcp_available_congestion_control=available)
    if module:
        (tmp_path / module).write_text("kernel/net/ipv4/tcp_bbr.ko.xz: \n")
    (found,) = congestion(tmp_path, tmp_path)
    assert found.verdict is verdict
    assert words in found.found


def test_bbr_where_nothing_can_be_read(tmp_path: Path) -> None:
    assert [each.verdict for each in congestion(tmp_path)] == [Verdict.SKIPPED]


def only(found: list[Finding]) -> tuple[Verdict, str]:
    (one,) = found
    return one.verdict, one.found


def test_slow_start(tmp_path: Path) -> None:
    sysctl, modules = tmp_path / "sysctl", tmp_path / "modules"
    assert not list(slow_start(sysctl, modules))
    assert only(list(slow_start(write(sysctl, tcp_slow_start_after_idle="1"), modules)))[0] is Verdict.NOTE
    write(sysctl, tcp_available_congestion_control="reno cubic")
    assert only(list(slow_start(sysctl, modules)))[0] is Verdict.NOTE
    # BBR keeps its rate over a pause. As a module it is loaded when a path needs it.
    modules.mkdir()
    (modules / "modules.dep").write_text("kernel/net/ipv4/tcp_bbr.ko.xz:\n")
    assert only(list(slow_start(sysctl, modules)))[0] is Verdict.OK
    write(sysctl, tcp_available_congestion_control="reno cubic bbr")
    verdict, words = only(list(slow_start(sysctl, tmp_path)))
    assert verdict is Verdict.OK
    assert "not with BBR" in words
    assert only(list(slow_start(write(sysctl, tcp_slow_start_after_idle="0"), modules)))[0] is Verdict.OK


def test_routing_does_not_matter(tmp_path: Path) -> None:
    assert not list(forwarding(tmp_path))
    assert "off, which does not matter" in only(list(forwarding(write(tmp_path, ip_forward="0"))))[1]
    assert only(list(forwarding(write(tmp_path, ip_forward="1"))))[0] is Verdict.NOTE


def test_a_full_table_of_connections(tmp_path: Path) -> None:
    assert not list(conntrack(tmp_path))
    write(tmp_path, nf_conntrack_count="10", nf_conntrack_max="100")
    assert only(list(conntrack(tmp_path)))[0] is Verdict.OK
    write(tmp_path, nf_conntrack_count="90")
    assert only(list(conntrack(tmp_path)))[0] is Verdict.WARNING


def test_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_tables, "check", lambda: None)
    assert only(list(filters()))[0] is Verdict.OK

    def fail() -> None:
        raise DeviceError("cannot filter what clients send: not supported; load nf_tables")

    monkeypatch.setattr(port_tables, "check", fail)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (found,) = filters()
    assert (found.verdict, found.hint) == (Verdict.WARNING, "load nf_tables")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert only(list(filters()))[0] is Verdict.SKIPPED


@pytest.mark.parametrize(("value", "verdict"), [("=m", Verdict.OK), ("=y", Verdict.OK), (" is not set", Verdict.NOTE)])
def test_the_bridge_family(tmp_path: Path, value: str, verdict: Verdict) -> None:
    assert not list(bridge_family(tmp_path))
    text = f"#\nCONFIG_NF_TABLES_BRIDGE{value}\n#\n"
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/config.gz").write_bytes(gzip.compress(text.encode()))
    assert only(list(bridge_family(tmp_path)))[0] is verdict
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / f"config-{os.uname().release}").write_text(text)
    (tmp_path / "proc/config.gz").write_bytes(b"broken")
    assert only(list(bridge_family(tmp_path)))[0] is verdict


def test_modules_of_another_kernel_are_no_error(tmp_path: Path) -> None:
    assert not kernel_features._has_module("tcp_bbr", tmp_path / "none")
