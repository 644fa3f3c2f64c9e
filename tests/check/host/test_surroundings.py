"""Containers and hypervisors, by what they leave to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from etherws.check.host.surroundings import surroundings


def words(root: Path) -> str:
    return " | ".join(f"{each.found}: {each.hint}" for each in surroundings(root))


def test_a_machine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("container", raising=False)
    assert words(tmp_path) == ""
    monkeypatch.setenv("container", "lxc")
    assert "a lxc container" in words(tmp_path)
    monkeypatch.setenv("container", "\x1b[1m")
    assert words(tmp_path) == ""


@pytest.mark.parametrize(
    ("path", "name"), [(".dockerenv", "Docker"), ("run/.containerenv", "Podman"), ("run/systemd/container", "lxc")]
)
def test_a_container(tmp_path: Path, path: str, name: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("lxc\n")
    assert f"this is a {name} container" in words(tmp_path)


@pytest.mark.parametrize(
    ("path", "text", "name", "advice"),
    [
        ("sys/class/dmi/id/sys_vendor", "VMware, Inc.", "VMware", "forged transmits"),
        ("sys/class/dmi/id/sys_vendor", "Microsoft Corporation", "Hyper-V", "spoofing"),
        ("sys/class/dmi/id/product_name", "VirtualBox", "VirtualBox", "Allow All"),
        ("sys/class/dmi/id/sys_vendor", "QEMU", "KVM", "nwfilter"),
        ("sys/class/dmi/id/sys_vendor", "Amazon EC2", "Amazon EC2", "only TAPs"),
        ("sys/hypervisor/type", "xen", "Xen", "vif"),
    ],
)
def test_a_hypervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, text: str, name: str, advice: str
) -> None:
    monkeypatch.delenv("container", raising=False)
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(f"{text}\n")
    found = words(tmp_path)
    assert found.startswith(f"this is a guest of {name}")
    assert advice in found
