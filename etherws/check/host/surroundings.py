"""What this machine runs in: a container or a hypervisor, whose own rules decide which frames get out.

These rules cannot be seen from inside, so findings here say where to look. Read next: check/machine.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from etherws.check.findings import Finding, Verdict
from etherws.check.host.kernel_values import line


class _Host(NamedTuple):
    """A hypervisor or cloud: words in its firmware's names, its own name, and what it does to a guest's frames."""

    words: tuple[str, ...]
    name: str
    advice: str


_CLOUD = "the cloud passes only frames with the guest's own address; bridge no network card of this guest, only TAPs"

#: In this order: a cloud's firmware may name its hypervisor, too.
_HOSTS = (
    _Host(("amazon", "ec2"), "Amazon EC2", _CLOUD),
    _Host(("google",), "Google Cloud", _CLOUD),
    _Host(("hetzner",), "Hetzner Cloud", _CLOUD),
    _Host(("digitalocean",), "DigitalOcean", _CLOUD),
    _Host(("openstack",), "OpenStack", "port security drops other addresses; turn it off for this guest's port"),
    _Host(
        ("vmware",),
        "VMware",
        "in the port group's security policy accept promiscuous mode, MAC changes, forged transmits",
    ),
    _Host(("microsoft",), "Hyper-V", "allow MAC address spoofing in the settings of this guest's network adapter"),
    _Host(("virtualbox", "innotek"), "VirtualBox", "set the promiscuous mode of this guest's adapter to Allow All"),
    _Host(("xen",), "Xen", "the host may have rules by address (vif scripts, locking mode); look there"),
    _Host(
        ("qemu", "kvm", "bochs", "firecracker"),
        "KVM",
        "the host may filter by address (libvirt's nwfilter); look there",
    ),
)

#: Where the firmware's names are.
_DMI = ("sys_vendor", "product_name", "bios_vendor")


def surroundings(root: Path = Path("/")) -> Iterator[Finding]:
    """The container and the hypervisor. `root` is where the file system begins."""
    yield from _container(root)
    yield from _hypervisor(root)


def _container(root: Path) -> Iterator[Finding]:
    found = _container_name(root)
    if found:
        yield Finding(
            "container",
            f"this is a {found} container: it sees its own interfaces and bridges alone",
            Verdict.NOTE,
            "for a bridge of the host, give the container the host's network (--network host), /dev/net/tun, NET_ADMIN",
            {"container": found},
        )


def _container_name(root: Path) -> str:
    for path, name in ((".dockerenv", "Docker"), ("run/.containerenv", "Podman")):
        if (root / path).exists():
            return name
    found = line(root / "run/systemd/container") or os.environ.get("container", "")  # noqa: SIM112
    return found if found.isprintable() else ""


def _hypervisor(root: Path) -> Iterator[Finding]:
    words = " ".join(line(root / "sys/class/dmi/id" / name) for name in _DMI).lower()
    words += " " + line(root / "sys/hypervisor/type").lower()
    host = next((host for host in _HOSTS if any(word in words for word in host.words)), None)
    if host is not None:
        yield Finding(
            "hypervisor",
            f"this is a guest of {host.name}, whose rules for frames cannot be seen from here",
            Verdict.NOTE,
            host.advice,
            {"hypervisor": host.name},
        )
