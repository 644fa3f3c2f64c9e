"""What this kernel has, and how it is set: congestion control, slow start after idle, filters, connection tracking.

No right is needed, but for the filters. Read next: check/machine.py.
Source: Linux, Documentation/networking/ip-sysctl.rst, nf_conntrack-sysctl.rst.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

from etherws.check.findings import Finding, Verdict
from etherws.check.host.kernel_values import SYSCTL, line, number, text
from etherws.errors import DeviceError
from etherws.kernel import port_tables

#: Bytes of a kernel's configuration, unpacked, and of its list of modules.
CONFIG_MAX, MODULES_MAX = 1 << 20, 4 << 20


def congestion(sysctl: Path = SYSCTL, modules: Path | None = None) -> Iterator[Finding]:
    """Whether TCP can use BBR, and what it uses by default. `modules` is the folder of the kernel's modules."""
    ipv4 = sysctl / "net/ipv4"
    default, available = line(ipv4 / "tcp_congestion_control"), line(ipv4 / "tcp_available_congestion_control").split()
    data = {"default": default, "bbr": "bbr" in available}
    if not default:
        yield Finding("BBR", "what TCP can use cannot be read", Verdict.SKIPPED, "see /proc/sys/net/ipv4")
    elif data["bbr"]:
        yield Finding("BBR", f"is there; TCP's default is {default}", data=data)
    elif _has_module("tcp_bbr", modules):
        yield Finding(
            "BBR",
            f"is a module that is not loaded; TCP's default is {default}",
            Verdict.NOTE,
            "root's etherws loads it when a path needs it; for all others: modprobe tcp_bbr",
            data,
        )
    else:
        yield Finding(
            "BBR",
            f"this kernel does not have it; TCP's default is {default}, which is slower on long and lossy paths",
            Verdict.NOTE,
            "use a kernel with CONFIG_TCP_CONG_BBR",
            data,
        )


def slow_start(sysctl: Path = SYSCTL, modules: Path | None = None) -> Iterator[Finding]:
    """Whether TCP begins slowly again after each pause. `modules` is as that of congestion()."""
    found = number(sysctl / "net/ipv4/tcp_slow_start_after_idle")
    if found is None:
        return
    data = {"tcp_slow_start_after_idle": found}
    available = line(sysctl / "net/ipv4/tcp_available_congestion_control").split()
    if found and ("bbr" in available or _has_module("tcp_bbr", modules)):
        yield Finding(
            "slow start",
            "TCP begins slowly again after each pause, but not with BBR, which etherws takes on long paths",
            data=data,
        )
    elif found:
        yield Finding(
            "slow start",
            "TCP begins slowly again after each pause of the tunnel",
            Verdict.NOTE,
            "sysctl -w net.ipv4.tcp_slow_start_after_idle=0 makes the first frames after a pause faster",
            data,
        )
    else:
        yield Finding("slow start", "TCP keeps its rate in pauses", data=data)


def filters() -> Iterator[Finding]:
    """Whether nf_tables can do what a policy needs: it is asked, without anything put in force."""
    try:
        port_tables.check()
    except DeviceError as exc:
        words, _, hint = str(exc).partition("; ")
        # To ask needs the right to do it.
        verdict = Verdict.SKIPPED if os.geteuid() != 0 else Verdict.WARNING
        yield Finding("nf_tables", words, verdict, hint, {"filters": False})
    else:
        yield Finding("nf_tables", "can filter what clients send", data={"filters": True})


def bridge_family(root: Path = Path("/")) -> Iterator[Finding]:
    """Whether nf_tables has the bridge family, for rules of your own between ports. etherws does not need it."""
    found = _configured("CONFIG_NF_TABLES_BRIDGE", root)
    if found is None:
        return
    words = "has" if found else "does not have"
    hint = "" if found else "etherws does not need it; rules of your own between ports do"
    yield Finding(
        "nf_tables", f"{words} the bridge family", Verdict.OK if found else Verdict.NOTE, hint, {"bridge_family": found}
    )


def forwarding(sysctl: Path = SYSCTL) -> Iterator[Finding]:
    """Whether this machine routes: bridges do not need it."""
    found = number(sysctl / "net/ipv4/ip_forward")
    if found is not None:
        words = "on" if found else "off"
        yield Finding(
            "ip_forward",
            f"is {words}, which does not matter: bridges pass frames without it",
            Verdict.OK if not found else Verdict.NOTE,
            "" if not found else "this machine also routes: it may pass packets between networks that you keep apart",
            {"ip_forward": found},
        )


def conntrack(sysctl: Path = SYSCTL) -> Iterator[Finding]:
    """Whether the table of tracked connections is nearly full: then packets are dropped."""
    folder = sysctl / "net/netfilter"
    count, most = number(folder / "nf_conntrack_count"), number(folder / "nf_conntrack_max")
    if count is None or not most:
        return
    data = {"count": count, "max": most}
    if count * 10 >= most * 9:
        yield Finding(
            "conntrack",
            f"{count} of {most} connections are tracked: the kernel drops new ones when it is full",
            Verdict.WARNING,
            f"sysctl -w net.netfilter.nf_conntrack_max={2 * most}",
            data,
        )
    else:
        yield Finding("conntrack", f"{count} of {most} connections are tracked", data=data)


def _has_module(name: str, modules: Path | None) -> bool:
    folder = modules or Path("/lib/modules", os.uname().release)
    for index in ("modules.builtin", "modules.dep"):
        try:
            with open(folder / index, encoding="utf-8", errors="replace") as file:
                if f"/{name}.ko" in file.read(MODULES_MAX):
                    return True
        except OSError:
            continue
    return False


def _configured(name: str, root: Path) -> bool | None:
    """Whether the kernel was built with an option, also as a module; None if that cannot be read."""
    found = text(root / "boot" / f"config-{os.uname().release}")
    if not found:
        try:
            with gzip.open(root / "proc/config.gz", "rt", encoding="utf-8", errors="replace") as file:
                found = file.read(CONFIG_MAX)
        except (OSError, EOFError):
            return None
    return any(f"\n{name}={value}\n" in found for value in "ym")
