"""Whether this machine has room for what a configuration says: names of interfaces, bridges, ports and folders.

Nothing is changed, but for a port that is bound for a moment, without anybody being let in. Read next:
configuration.py, which asks.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from etherws.addresses import authority
from etherws.check.findings import Finding, Verdict
from etherws.errors import DeviceError
from etherws.kernel import link_facts
from etherws.monitoring import listen_address
from etherws.server.taken_port import listening_program

_UNIX = "unix:"


def interfaces(device: str, bridges: Sequence[str], filtering: Collection[str | None] = ()) -> Iterator[Finding]:
    """Whether the device's name is free, or a TAP's, and each bridge is one, or can be made. Those of `filtering` must
    filter VLANs; None stands for an interface with VLANs that is in no bridge."""
    try:
        links = {link.name: link for link in link_facts.links()}
    except (DeviceError, OSError) as exc:
        yield Finding("device", f"interfaces cannot be looked at: {exc}", Verdict.SKIPPED)
        return
    found = links.get(device)
    if found and found.kind != "tap":
        yield Finding("device", f"{device} is an interface of another kind", Verdict.FAILED, "choose another device")
    elif found:
        yield Finding("device", f"{device} is a TAP already: of etherws, if it runs", Verdict.NOTE)
    else:
        yield Finding("device", f"{device} can be made")
    for name in bridges:
        link = links.get(name)
        hint = f"ip link {'set' if link else 'add'} {name} type bridge vlan_filtering 1"
        if link is None and name in filtering:
            words = f"{name} is not there, and one that etherws makes filters no VLANs: clients with VLANs are refused"
            yield Finding("bridge", words, Verdict.FAILED, hint)
        elif link is None:
            yield Finding("bridge", f"{name} is not there: etherws makes it", Verdict.NOTE)
        elif link.kind != "bridge":
            words = f"{name} is an interface, and no bridge"
            yield Finding("bridge", words, Verdict.FAILED, "name a bridge, or a new name to have one made")
        elif name in filtering and not (link.bridge and link.bridge.vlan_filtering):
            words = f"{name} does not filter VLANs: clients with VLANs are refused"
            yield Finding("bridge", words, Verdict.FAILED, hint)
        elif name in filtering and link.bridge and link.bridge.provider:
            words = f"{name} has tags of 802.1ad: clients with VLANs are refused"
            yield Finding("bridge", words, Verdict.FAILED, f"ip link set {name} type bridge vlan_protocol 802.1Q")
        else:
            yield Finding("bridge", f"{name} is there")
    if None in filtering:
        words = "an interface with VLANs is in no bridge"
        yield Finding("bridge", words, Verdict.WARNING, "set bridge, unless the interface is in one before the start")


def port(topic: str, address: str | None, number: int) -> Finding:
    """Whether a server can listen there now."""
    if address and address.startswith(_UNIX):
        path = address.removeprefix(_UNIX)
        if path.startswith("@") or os.path.isdir(os.path.dirname(path)):
            return Finding(topic, f"{address} can be made")
        words = f"the folder of {address} is not there"
        return Finding(topic, words, Verdict.FAILED, f"mkdir -p {os.path.dirname(path)}")
    shown = authority(address or "*", number)
    try:
        _bind(address, number)
    except socket.gaierror as exc:
        return Finding(topic, f"{address} cannot be found: {exc.strerror}", Verdict.WARNING, "a start waits for it")
    except (OSError, UnicodeError) as exc:
        return _refused(topic, shown, address, number, exc)
    return Finding(topic, f"{shown} is free")


def monitor(text: str) -> Finding:
    """Whether --monitor can serve at this address."""
    host, number = listen_address("--monitor", text)
    return port("monitor", None if host == "*" else host, number)


def folder_of(topic: str, path: str) -> Iterator[Finding]:
    """Whether the folder of a file that is to be written is there."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        yield Finding(topic, f"the folder {folder} is not there", Verdict.FAILED, f"mkdir -p {folder}")


def _bind(address: str | None, number: int) -> None:
    """Bind the port as a server does, without listening. Raises OSError, UnicodeError."""
    family, target = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET, ("", number)
    if address is not None:
        family, _, _, _, target = socket.getaddrinfo(address, number, type=socket.SOCK_STREAM)[0]  # type: ignore[assignment]
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address is not None))
        sock.bind(target)


def _is_ours(program: str) -> bool:
    """Whether the program, as listening_program() names it, is an etherws; or systemd, which keeps sockets of units."""
    pid = program.rpartition("(pid ")[2].rstrip(")")
    try:
        return pid == "1" or "etherws" in Path("/proc", pid, "cmdline").read_text(errors="replace")
    except OSError:
        return False


def _refused(topic: str, shown: str, address: str | None, number: int, error: OSError | UnicodeError) -> Finding:
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        program = listening_program(address or "", number)
        if not program:
            return Finding(topic, f"{shown} is taken", Verdict.WARNING, "root can see by which program")
        if _is_ours(program):
            return Finding(topic, f"{shown} is taken{program}: by this server, if it runs", Verdict.NOTE)
        return Finding(topic, f"{shown} is taken{program}", Verdict.FAILED, "end that program, or choose another port")
    if code == errno.EADDRNOTAVAIL:
        words = f"this machine does not have {shown} now"
        return Finding(topic, words, Verdict.WARNING, "a start waits for it; is it right?")
    if code in (errno.EACCES, errno.EPERM):
        return Finding(topic, f"{shown}: only root can try a port below 1024", Verdict.SKIPPED)
    return Finding(topic, f"{shown}: {getattr(error, 'strerror', None) or error}", Verdict.FAILED, "check the address")
