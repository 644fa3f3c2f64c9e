"""What this process may do: the TAP device, capabilities, open files.

A TAP is made for a moment, in no bridge, if that is allowed. Nothing else changes. Read next: check/machine.py.
Sources: capabilities(7), Linux drivers/net/tun.c, Documentation/networking/tuntap.rst.
"""

from __future__ import annotations

import fcntl
import os
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

from etherws.check.findings import Finding, Verdict
from etherws.check.host.kernel_values import SYSCTL, number, text
from etherws.errors import DeviceError
from etherws.tunnel import tap_device, tap_driver, tap_errors, tap_probe
from etherws.tunnel.offloads import Offload

#: include/uapi/linux/if_tun.h
TUNGETFEATURES, IFF_VNET_HDR = 0x800454CF, 0x4000

#: The name of the TAP that is made for a moment.
NAME = "ewcheck%d"

#: include/uapi/linux/capability.h, and what etherws cannot do without each.
CAPABILITIES = {
    12: ("CAP_NET_ADMIN", "make and set up interfaces"),
    13: ("CAP_NET_RAW", "notice loops"),
    10: ("CAP_NET_BIND_SERVICE", "listen on ports below {port}"),
}

#: Descriptors for each client of a server with one connection; clients that a server should have room for, as many
#: as a bridge; and all other descriptors. A server says at its start what server/scarcity.py makes of the same.
PER_CLIENT, CLIENTS, OTHERS = 3, 1023, 128


def tap(device: str = tap_errors.DEVICE) -> Iterator[Finding]:
    """The TAP device, and what its driver can do."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        words = tap_errors.explained(exc.errno or 0, "a TAP").partition("; ")
        # Who has no right for this is not who runs etherws.
        usual = isinstance(exc, PermissionError) and os.geteuid() != 0
        yield Finding("TAP", words[0], Verdict.SKIPPED if usual else Verdict.FAILED, words[2], {"device": device})
        return
    try:
        features = struct.unpack("=I", fcntl.ioctl(fd, TUNGETFEATURES, bytes(4)))[0]
    finally:
        os.close(fd)
    if not features & IFF_VNET_HDR:
        yield Finding("TAP", f"{device}: no vnet_hdr", Verdict.FAILED, "use Linux 4.0 or later", {"vnet_hdr": False})
        return
    yield Finding("TAP", f"{device} can be opened, and knows vnet_hdr", data={"vnet_hdr": True})
    yield from _offloads()


def _offloads() -> Iterator[Finding]:
    try:
        fd = tap_device.open_device(NAME)
    except DeviceError as exc:
        yield Finding("TAP offloads", "no TAP can be made to try them", Verdict.SKIPPED, str(exc))
        return
    try:
        tap_driver.set_header(fd, NAME)
        tso = bool(tap_driver.set_offloads(fd, Offload.TCP) & tap_driver.TUN_F_TSO4)
        why, _, hint = tap_probe.why_not(fd).partition("; ")
    finally:
        os.close(fd)
    data = {"tso": tso, "uso": not why}
    made = "a TAP was made and removed again; it knows TSO"
    if not tso:
        yield Finding("TAP offloads", "no TSO: bulk transfers are slower", Verdict.WARNING, "use a newer kernel", data)
    elif why:
        words = f"{made}, but not USO, so QUIC and WireGuard in a tunnel are slower: {why}"
        yield Finding("TAP offloads", words, Verdict.NOTE, hint, data)
    else:
        yield Finding("TAP offloads", f"{made} and USO", data=data)


def capabilities(status: str | None = None, sysctl: Path = SYSCTL) -> Iterator[Finding]:
    """The rights of this process. `status` is the text of /proc/self/status, for tests."""
    lines = (text(Path("/proc/self/status")) if status is None else status).splitlines()
    found = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    privileged = number(sysctl / "net/ipv4/ip_unprivileged_port_start")
    port = 1024 if privileged is None else privileged
    missing = [
        (name, what.format(port=port))
        for bit, (name, what) in CAPABILITIES.items()
        if not found >> bit & 1 and not (bit == 10 and port <= 80)
    ]
    data = {"missing": [name for name, _ in missing]}
    if not missing:
        yield Finding("rights", "all that etherws needs", data=data)
        return
    words = "; ".join(f"no {name}: cannot {what}" for name, what in missing)
    if os.geteuid() != 0:
        hint = "etherws itself needs them: run it, and this check, as root or from its systemd unit"
        yield Finding("rights", words, Verdict.NOTE, hint, data)
    else:
        failed = Verdict.FAILED if "CAP_NET_ADMIN" in data["missing"] else Verdict.WARNING
        hint = f"a container needs {' '.join(f'--cap-add {name[4:]}' for name, _ in missing)}"
        yield Finding("rights", words, failed, hint, data)


def open_files(limits: tuple[int, int] | None = None) -> Iterator[Finding]:
    """How many clients the limit of open files has room for. `limits` are the soft and the hard one, for tests."""
    hard = (limits or resource.getrlimit(resource.RLIMIT_NOFILE))[1]
    data = {"limit": None if hard == resource.RLIM_INFINITY else hard}
    if hard == resource.RLIM_INFINITY or hard >= PER_CLIENT * CLIENTS + OTHERS:
        words = "any number of open files" if data["limit"] is None else f"{hard} open files"
        yield Finding("open files", words, data=data)
        return
    hint = "allow more by LimitNOFILE= in the systemd unit, or by ulimit -Hn"
    clients = max(0, hard - OTHERS) // PER_CLIENT
    words = f"at most {hard} open files: room for some {clients} clients of a server, fewer with several connections"
    yield Finding("open files", words, Verdict.WARNING if hard < 300 else Verdict.NOTE, hint, data)
