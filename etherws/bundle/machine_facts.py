"""What a bug report says of the machine: versions, settings of the kernel, interfaces, bridges, and our rules.

All is read, nothing is changed, and no right is needed: what may not be looked at is left out, with the reason. Read
next: archive.py, which writes it down.
"""

from __future__ import annotations

import os
import platform
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

from etherws import __version__
from etherws.check.host.kernel_values import SYSCTL, line, text
from etherws.errors import EtherwsError
from etherws.kernel import forward_chains, interfaces, link_facts, nftables

#: Libraries whose version is told.
LIBRARIES = ("gevent", "gevent-websocket", "pyroute2", "python-pytun", "click", "bcrypt", "cryptography", "websockets")
MORE_LIBRARIES = ("pyOpenSSL", "gunicorn", "greenlet", "prometheus-client", "setproctitle")

#: Settings of the kernel that a tunnel depends on; one that is missing is not told.
SYSCTLS = (
    *(f"net.core.{name}" for name in ("default_qdisc", "rmem_max", "wmem_max", "netdev_max_backlog", "somaxconn")),
    *(
        f"net.ipv4.{name}"
        for name in (
            *("tcp_congestion_control", "tcp_available_congestion_control", "tcp_allowed_congestion_control"),
            *("tcp_slow_start_after_idle", "tcp_rmem", "tcp_wmem", "tcp_notsent_lowat", "tcp_mtu_probing", "tcp_ecn"),
            *("tcp_retries2", "tcp_timestamps", "tcp_sack", "ip_forward", "ip_unprivileged_port_start"),
        )
    ),
    *(f"net.ipv6.conf.all.{name}" for name in ("disable_ipv6", "forwarding", "accept_ra")),
    *(f"net.bridge.bridge-nf-call-{name}" for name in ("iptables", "ip6tables", "arptables")),
    *(f"net.netfilter.nf_conntrack_{name}" for name in ("count", "max")),
    *("net.unix.max_dgram_qlen", "fs.file-nr", "user.max_user_namespaces", "kernel.tainted"),
)

#: Ports that a bridge's table is told of.
PORTS_MAX = 1000

#: Entries of a bridge's table that are counted.
ENTRIES_MAX = 100_000


def versions(root: Path = Path("/")) -> dict[str, Any]:
    """Of etherws, Python, the kernel, the distribution and the libraries."""
    release = dict(row.split("=", 1) for row in text(root / "etc/os-release").splitlines() if "=" in row)
    kernel = os.uname()
    return {
        "etherws": __version__,
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "kernel": {"release": kernel.release, "version": kernel.version, "machine": kernel.machine},
        "distribution": {
            name: release[name].strip('"') for name in ("ID", "VERSION_ID", "PRETTY_NAME") if name in release
        },
        "libraries": {name: version for name in (*LIBRARIES, *MORE_LIBRARIES) if (version := _version(name))},
        "processors": len(os.sched_getaffinity(0)),
        "memory": next(iter(text(root / "proc/meminfo").splitlines()), ""),
        "uptime": line(root / "proc/uptime").partition(" ")[0],
        "user": os.geteuid(),
    }


def sysctls(root: Path = SYSCTL) -> dict[str, str]:
    """The kernel's settings."""
    # A name of a setting may have dots in it, but not one of these.
    return {name: value for name in SYSCTLS if (value := line(root / name.replace(".", "/")))}


def links() -> dict[str, Any]:
    """Interfaces as the kernel describes them, with their counters, and how many addresses each bridge has learned."""
    return {
        "links": _or_reason(lambda: [asdict(link) for link in link_facts.links()]),
        "counters": _or_reason(_counters),
        "tables": _or_reason(_tables),
    }


def rules() -> dict[str, Any]:
    """Our tables of nf_tables, with the frames that each rule has counted, and the chains that bridged frames meet."""
    return {
        "tables": _or_reason(
            lambda: {name: dict(nftables.frame_counts(name)) for name in islice(nftables.table_handles(), PORTS_MAX)}
        ),
        "forward_chains": _or_reason(lambda: [asdict(chain) for chain in forward_chains.chains()]),
    }


def _or_reason(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (EtherwsError, OSError) as exc:
        return {"left out": str(exc)}


def _counters() -> dict[str, dict[str, int]]:
    with interfaces.netlink("look at the counters of interfaces") as route:
        found = {}
        for link in islice(route.link("dump"), link_facts.LINKS_MAX):
            stats = link.get("stats64") or {}
            found[str(link.get("ifname"))] = {
                name: stats[name]
                for name in stats
                if isinstance(name, str) and isinstance(stats[name], int) and stats[name]
            }
        return found


def _tables() -> dict[str, dict[str, int]]:
    """How many addresses were learned behind each port, by the index of the bridge and of the port."""
    counts: dict[str, Counter[str]] = {}
    with interfaces.netlink("look at the tables of bridges") as route:
        for entry in islice(route.fdb("dump"), ENTRIES_MAX):
            bridge = entry.get("master")
            if bridge is not None:
                counts.setdefault(str(bridge), Counter())[str(entry["ifindex"])] += 1
    return {bridge: dict(ports.most_common(PORTS_MAX)) for bridge, ports in counts.items()}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
