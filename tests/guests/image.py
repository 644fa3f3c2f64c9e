"""The disk of the two machines of tests/guests/: a bare Debian with its own kernel, and a root's shell on the second
serial line. Nothing of etherws is on it. It has what a tutorial says that its reader has already, such as QEMU, and the
archives that apt would fetch, of the day the disk was made. How it is kept: tests/lab/disks.py."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from tests.lab import debian, disks

#: What is there: a small server's Debian.
PACKAGES = (
    *("linux-image-amd64", "systemd-sysv", "dbus", "udev", "kmod", "procps", "iproute2", "iputils-ping", "python3"),
    "ca-certificates",
    # For tutorials: a proxy, a laptop's DHCP client and the DHCP server of an office, a hypervisor.
    *("squid", "isc-dhcp-client", "dnsmasq-base", "qemu-system-x86", "qemu-utils"),
)

#: What the README has its reader install. The disk may be older than the mirror, which has one version of each.
FETCHED = ("python3-venv", "bridge-utils", "net-tools")

SIZE = "4G"

#: How many disks are kept, of 1 GB each.
KEPT = 2

#: The interfaces, by their MAC addresses' last bytes: the cable to the other machine is eth0. The other one leads out
#: to the package indexes, by QEMU's own network (its addresses: QEMU's manual, "Using the user mode network stack").
CABLE, OUT = "52:54:00:00:00", "52:54:00:00:01"
OUT_NETWORK = "[Match]\nName=out0\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nIPv6AcceptRA=no\n"

#: The shell, which says when it begins, and after each command how that ended. There is nothing to wait for at boot:
#: a tutorial's reader logs in when he can.
BEGINS, READY = "<the shell begins>", "<ready {}>"
PROFILE = f"stty -echo cols 120 rows 40\necho '{BEGINS}'\nPS1='\\n{READY.format('$?')}\\n' PS2=\n"
SHELL = """\
[Unit]
Description=Shell
After=systemd-user-sessions.service
[Service]
WorkingDirectory=/root/etherws
Environment=HOME=/root LANG=C.UTF-8 TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
StandardInput=tty
StandardOutput=tty
TTYPath=/dev/ttyS1
TTYReset=yes
ExecStart=/bin/bash --noediting --rcfile /etc/shell -i
SendSIGHUP=yes
TimeoutStopSec=1
Restart=always
[Install]
WantedBy=multi-user.target
"""

#: Units that would do what no test needs, in the same minutes.
MASKED = (
    "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer e2scrub_reap.service"
    " squid.service systemd-binfmt.service"
)


def disk() -> contextlib.AbstractContextManager[Path]:
    """The folder with root.ext4, vmlinuz and initrd.img: see tests/lab/disks.py."""
    files = ("tests/guests/image.py", "tests/lab/debian.py", "tests/lab/disks.py")
    key = hashlib.sha256(b"".join((debian.CHECKOUT / name).read_bytes() for name in files)).hexdigest()[:16]
    return disks.kept("guests", key, KEPT, _make)


def _make(folder: Path) -> None:
    root = folder / "root"
    debian.bootstrap(root)
    install = "apt-get install -y -q"
    disks.install(
        root,
        f"{install} --no-install-recommends {' '.join(PACKAGES)} && apt-get clean",
        f"{install} --download-only {' '.join(FETCHED)}",
        directory="/",
    )
    _configure(root)
    disks.finish(root, folder / "disk", SIZE, "enable systemd-networkd shell", f"mask {MASKED}")


def _configure(root: Path) -> None:
    """What whoever installs a machine tells it: names, network, who may sign."""
    etc = root / "etc"
    texts = {
        "hostname": "debian\n",
        "hosts": "127.0.0.1 localhost debian\n",
        # QEMU asks this machine's.
        "resolv.conf": "nameserver 10.0.2.3\n",
        "fstab": f"/dev/vda / ext4 defaults 0 0\n/dev/vdb {debian.INSIDE} ext4 defaults 0 0\n",
        "shell": PROFILE,
        "systemd/system/shell.service": SHELL,
        "systemd/network/10-out0.link": f"[Match]\nMACAddress={OUT}:01 {OUT}:02\n[Link]\nName=out0\n",
        "systemd/network/out0.network": OUT_NETWORK,
    }
    for number in (1, 2):
        network = f"[Match]\nMACAddress={CABLE}:0{number}\n[Network]\nAddress=192.0.2.{number}/24\nIPv6AcceptRA=no\n"
        texts[f"systemd/network/cable{number}.network"] = network
    if (certificates := etc / "pip-cert.pem").exists():
        # Of this machine's package index: see tests/lab/debian.py.
        texts["pip.conf"] = f"[global]\ncert = /{certificates.relative_to(root)}\n"
    for name, text in texts.items():
        (etc / name).parent.mkdir(parents=True, exist_ok=True)
        (etc / name).write_text(text)
    (root / debian.INSIDE[1:]).mkdir()
