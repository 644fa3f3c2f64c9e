"""Programs that set up interfaces, and may grab those of etherws: systemd-networkd, NetworkManager, dhcpcd.

Their files are read, not they themselves. Nobody's file is changed. Read next: check/machine.py.
Sources: systemd.network(5), NetworkManager.conf(5), dhcpcd.conf(5).
"""

from __future__ import annotations

import configparser
import fnmatch
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from etherws.check.findings import Finding, Verdict
from etherws.check.host.kernel_values import text
from etherws.errors import printable

#: The interface that is meant: the first of etherws.
NAME = "ethws0"

#: Files of one folder that are looked at.
FILES_MAX = 500

#: Keys of networkd's [Match] that a TAP cannot have; with one of them, the file is not for ours.
_NOT_OURS = {"macaddress", "permanentmacaddress", "path", "driver", "property", "wlaninterfacetype", "ssid", "bssid"}


def managers(root: Path = Path("/"), name: str = NAME) -> Iterator[Finding]:
    """Those that run. `root` is where the file system begins."""
    found = False
    for running, look in (
        ("run/systemd/netif/state", _networkd),
        ("run/NetworkManager", _network_manager),
        ("run/dhcpcd", _dhcpcd),
    ):
        if (root / running).exists():
            found = True
            yield from look(root, name)
    if not found:
        yield Finding("managers", "no NetworkManager, networkd or dhcpcd runs", data={"managers": []})


def _networkd(root: Path, name: str) -> Iterator[Finding]:
    path, file = next(
        ((path, file) for path, file in _networks(root) if _matches(file, name)), (None, configparser.ConfigParser())
    )
    if path is None or file.get("Link", "Unmanaged", fallback="no").lower() in ("yes", "true", "on", "1"):
        yield Finding("networkd", f"runs, and leaves {name} alone", data={"file": None if path is None else str(path)})
        return
    shown = printable(f"/{path.relative_to(root)}")
    takes = f"its file {shown} takes {name}" + (", and DHCP" if file.has_option("Network", "DHCP") else "")
    yield Finding(
        "networkd",
        f"{takes}: it may give it addresses, or take it out of its bridge",
        Verdict.WARNING,
        "write /etc/systemd/network/00-ethws.network: [Match] Name=ethws*  [Link] Unmanaged=yes;"
        " then networkctl reload",
        {"file": shown},
    )


def _networks(root: Path) -> Iterator[tuple[Path, configparser.ConfigParser]]:
    """networkd's files, in its order: by name; one in /etc stands for all of its name."""
    files: dict[str, Path] = {}
    for folder in ("usr/lib/systemd/network", "usr/local/lib/systemd/network", "run/systemd/network"):
        files |= _files(root / folder, ".network")
    files |= _files(root / "etc/systemd/network", ".network")
    for _, path in sorted(files.items()):
        if (file := _parsed(text(path))) is not None:
            yield path, file


def _matches(file: configparser.ConfigParser, name: str) -> bool:
    if not file.has_section("Match"):
        return False
    match = {key: value.split() for key, value in file.items("Match")}
    if not match or _NOT_OURS & match.keys():
        return False
    # The kernel's kind of a TAP is tun, its type is that of all Ethernet.
    facts = {"name": name, "originalname": name, "type": "ether", "kind": "tun"}
    return all(_fits(patterns, facts[key]) for key, patterns in match.items() if key in facts)


def _fits(patterns: list[str], value: str) -> bool:
    if patterns and patterns[0].startswith("!"):
        return not _fits([patterns[0][1:], *patterns[1:]], value)
    return any(fnmatch.fnmatchcase(value, pattern) for pattern in patterns)


def _network_manager(root: Path, name: str) -> Iterator[Finding]:
    unmanaged = ""
    # Later files win: NetworkManager.conf, and then the folder beside it.
    folders = ("usr/lib/NetworkManager/conf.d", "run/NetworkManager/conf.d")
    for folder in (*folders, "etc/NetworkManager", "etc/NetworkManager/conf.d"):
        for path in sorted(_files(root / folder, ".conf").values()):
            file = _parsed(text(path))
            unmanaged = file.get("keyfile", "unmanaged-devices", fallback=unmanaged) if file else unmanaged
    specs = [spec.strip() for part in unmanaged.split(";") for spec in part.split(",")]
    left = any(
        fnmatch.fnmatchcase(name, spec.partition(":")[2].lstrip("="))
        if spec.startswith("interface-name:")
        else fnmatch.fnmatchcase(name, spec)
        for spec in specs
        if spec
    )
    if left:
        yield Finding("NetworkManager", f"runs, and leaves {name} alone", data={"unmanaged": True})
        return
    yield Finding(
        "NetworkManager",
        f"runs, and nothing tells it to leave {name} alone: a connection of yours, or a click, may take it",
        Verdict.NOTE,
        "write /etc/NetworkManager/conf.d/ethws.conf: [keyfile] unmanaged-devices=interface-name:ethws*;"
        " then nmcli general reload",
        {"unmanaged": False},
    )


def _dhcpcd(root: Path, name: str) -> Iterator[Finding]:
    allowed: list[str] = []
    denied: list[str] = []
    for line in text(root / "etc/dhcpcd.conf").splitlines():
        words = line.split("#")[0].split()
        if words[:1] == ["allowinterfaces"]:
            allowed += words[1:]
        elif words[:1] == ["denyinterfaces"]:
            denied += words[1:]
    if (denied and _fits(denied, name)) or (allowed and not _fits(allowed, name)):
        yield Finding("dhcpcd", f"runs, and leaves {name} alone", data={"denied": True})
        return
    yield Finding(
        "dhcpcd",
        f"runs, and asks for an address on {name}, also if it is in a bridge",
        Verdict.WARNING,
        "add to /etc/dhcpcd.conf: denyinterfaces ethws*; then start dhcpcd again",
        {"denied": False},
    )


def _files(folder: Path, ending: str) -> dict[str, Path]:
    try:
        names = [entry.name for entry in islice(os.scandir(folder), FILES_MAX) if entry.name.endswith(ending)]
    except OSError:
        return {}
    return {name: folder / name for name in names}


def _parsed(text: str) -> configparser.ConfigParser | None:
    """The sections of a file; None if it is none. Keys may be repeated, and are in small letters."""
    parser = configparser.ConfigParser(
        strict=False, interpolation=None, allow_no_value=True, delimiters=("=",), empty_lines_in_values=False
    )
    try:
        parser.read_string(text)
    except configparser.Error:
        return None
    return parser
