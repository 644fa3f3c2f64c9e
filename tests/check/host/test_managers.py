"""Programs that set up interfaces, by their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from etherws.check.findings import Finding, Verdict
from etherws.check.host.managers import managers


def found(root: Path, files: dict[str, str]) -> list[Finding]:
    """What is found with these files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return list(managers(root))


def test_none_runs(tmp_path: Path) -> None:
    (one,) = found(tmp_path, {"etc/systemd/network/a.network": "[Match]\nName=*\n"})
    assert one.verdict is Verdict.OK


NETWORKD = {"run/systemd/netif/state": ""}


@pytest.mark.parametrize(
    ("files", "by"),
    [
        ({"etc/systemd/network/10-all.network": "[Match]\nName=*\n[Network]\nDHCP=yes\n"}, "10-all"),
        ({"etc/systemd/network/10-eth.network": "[Match]\nName=en* eth*\n[Network]\nDHCP=ipv4\n"}, "10-eth"),
        ({"usr/lib/systemd/network/80.network": "[Match]\nType=ether\nName=!lo docker*\n"}, "80"),
        ({"run/systemd/network/a.network": "[Match]\nKind=tun\nName=ethws0\nName=ethws?\n"}, "a"),
        ({"etc/systemd/network/a.network": "[Match]\nName=en*\n"}, None),
        ({"etc/systemd/network/a.network": "[Match]\nType=!ether\n"}, None),
        ({"etc/systemd/network/a.network": "[Match]\nName=*\nMACAddress=02:00:00:00:00:01\n"}, None),
        ({"etc/systemd/network/a.network": "[Network]\nDHCP=yes\n"}, None),
        ({"etc/systemd/network/a.network": "[Match]\n[Network]\nDHCP=yes\n"}, None),
        ({"etc/systemd/network/a.network": "not a file\n"}, None),
        (
            {
                "etc/systemd/network/00-ethws.network": "[Match]\nName=ethws*\n[Link]\nUnmanaged=yes\n",
                "etc/systemd/network/10-all.network": "[Match]\nName=*\n",
            },
            None,
        ),
        (
            {
                "usr/lib/systemd/network/80.network": "[Match]\nName=*\n",
                "etc/systemd/network/80.network": "[Match]\nName=en*\n",
            },
            None,
        ),
    ],
)
def test_networkd(tmp_path: Path, files: dict[str, str], by: str | None) -> None:
    (one,) = found(tmp_path, {**NETWORKD, **files})
    assert one.verdict is (Verdict.OK if by is None else Verdict.WARNING)
    if by is not None:
        assert one.data["file"].endswith(f"/{by}.network")
        assert ("DHCP" in one.found) == ("DHCP" in str(files))


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("interface-name:ethws*", True),
        ("mac:02:00:00:00:00:01;interface-name:=ethws0", True),
        ("interface-name:docker0,ethws*", True),
        ("interface-name:docker*", False),
        ("", False),
    ],
)
def test_network_manager(tmp_path: Path, value: str, left: bool) -> None:
    files = {
        "run/NetworkManager/x": "",
        "etc/NetworkManager/NetworkManager.conf": "[main]\nplugins=keyfile\n[keyfile]\nunmanaged-devices=none\n",
        "etc/NetworkManager/conf.d/a.conf": f"[keyfile]\nunmanaged-devices={value}\n",
        "usr/lib/NetworkManager/conf.d/broken.conf": "unmanaged\n",
    }
    (one,) = found(tmp_path, files)
    assert one.verdict is (Verdict.OK if left else Verdict.NOTE)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("denyinterfaces docker* ethws*\n", True),
        ("allowinterfaces eth0\n", True),
        ("#denyinterfaces ethws*\ninterface eth0\n", False),
        ("allowinterfaces eth*\n", False),
    ],
)
def test_dhcpcd(tmp_path: Path, text: str, left: bool) -> None:
    (one,) = found(tmp_path, {"run/dhcpcd/pid": "1", "etc/dhcpcd.conf": text})
    assert one.verdict is (Verdict.OK if left else Verdict.WARNING)
