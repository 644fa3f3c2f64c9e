"""A tunnel to the WebSocket libraries of others: each answers a question by ARP and asks one, as client and as server.

The peers are the programs beside this file. ``make acceptance`` installs the libraries.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.hosts import Host, Process, until
from tests.lab.tunnels import add_addresses

pytestmark = pytest.mark.packages

HERE = Path(__file__).parent

#: Where `make acceptance` installs the packages of npm, and Debian the sources of Go's.
NODE_MODULES = Path(sys.prefix, "peers", "node_modules")
GO_SOURCES = Path("/usr/share/gocode")

CLIENTS = ["npm_ws", "npm_undici", "python_websockets", "python_aiohttp", "python_websocket_client"]
CLIENTS += ["go xnet", "go gorilla", "go nhooyr"]
SERVERS = [name for name in CLIENTS if name not in ("npm_undici", "python_websocket_client")]


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The peers in Go, built."""
    if not GO_SOURCES.is_dir():
        pytest.skip("no packages of Go on this machine")
    folder = tmp_path_factory.mktemp("go")
    environ = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_SOURCES), "GOCACHE": str(folder / "cache")}
    subprocess.run(["go", "build", "-o", folder / "peer", "."], cwd=HERE / "go", env=environ, check=True, timeout=120)
    return folder / "peer"


def start(request: pytest.FixtureRequest, host: Host, name: str, *arguments: str) -> Process:
    """Start a peer on this machine."""
    if name.startswith("go "):
        return host.run(str(request.getfixturevalue("go")), name.partition(" ")[2], *arguments)
    if name.startswith("python_"):
        return host.run(sys.executable, "-m", f"tests.peers.{name}", *arguments, cwd=HERE.parent.parent)
    if not NODE_MODULES.is_dir():
        pytest.skip("no packages of npm here; make acceptance installs them")
    # Node looks for packages beside a program and above it only.
    folder = request.getfixturevalue("tmp_path")
    for program in HERE.glob("*.mjs"):
        shutil.copy(program, folder)
    (folder / "node_modules").symlink_to(NODE_MODULES)
    return host.run(host.program("node"), str(folder / f"{name}.mjs"), *arguments)


def asks_and_answers(ours: Host, peer: Process) -> None:
    """The peer gets an answer from our kernel, and our kernel gets one from the peer."""
    ours.run("ping", "-c", "3", "-i", "0.2", "10.9.0.2")
    peer.says("was asked")
    peer.says("was answered")

    def resolved() -> bool:
        with ours.netlink() as route:
            found = [each for each in route.get_neighbours(family=2) if each.get("dst") == "10.9.0.2"]
        return any(each.get("lladdr") == "02:ee:00:00:00:02" for each in found)

    until(resolved, "our kernel to know the peer's address")


@pytest.mark.parametrize("name", CLIENTS)
def test_a_library_joins_our_server(name: str, hosts: tuple[Host, Host], request: pytest.FixtureRequest) -> None:
    server, other = hosts
    etherws = server.etherws("server", "--foreground")
    etherws.says("listening on ws://")
    add_addresses(server, "ethws0", "10.9.0.1/24")
    peer = start(request, other, name, "connect", "ws://192.0.2.1/")
    asks_and_answers(server, peer)
    etherws.says("by version 1 of the wire")


@pytest.mark.parametrize("options", ["--wire=2", "--wire=1"])
@pytest.mark.parametrize("name", [*SERVERS, "npm_ws, choose"])
def test_our_client_joins_a_library(
    name: str, options: str, hosts: tuple[Host, Host], request: pytest.FixtureRequest
) -> None:
    other, client = hosts
    library, _, role = name.partition(", ")
    peer = start(request, other, library, role or "listen")
    port = re.search(r"listening on ([0-9]+)\.", peer.says(".\n"))
    assert port
    authority = f"192.0.2.1:{port[1]}"
    # Go's x/net wants to know to which page a client belongs; RFC 6455, section 4.1, asks that of browsers only.
    origin = ("--header", f"Origin: http://{authority}") if library == "go xnet" else ()
    etherws = client.etherws("client", "--foreground", options, *origin, f"ws://{authority}/")
    etherws.says("connected to ws://")
    add_addresses(client, "ethws0", "10.9.0.1/24")
    asks_and_answers(client, peer)
    assert "lost" not in etherws.output
