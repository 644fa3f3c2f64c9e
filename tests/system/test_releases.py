"""The checkout with the code of releases, both ways: frames pass, by the best version of the wire that both have."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.lab.frames import frame
from tests.lab.hosts import Host, Process
from tests.lab.releases import RELEASES, Release


def passes(hosts: tuple[Host, Host], server: Process, client: Process, version: int) -> None:
    """Wait until they are connected, and see that frames pass both ways."""
    client.says("connected to ws://192.0.2.1:80")
    server.says(f"joined on ethws0, by version {version} of the wire")
    ends = [host.frames("ethws0") for host in hosts]
    for sender, receiver in (ends, ends[::-1]):
        for size in (60, 1514):
            sender.send(frame(size, seed=size))
            assert receiver.receive() == frame(size, seed=size)


@pytest.mark.parametrize(("revision", "version"), RELEASES.items())
def test_the_checkouts_client_joins_a_releases_server(
    hosts: tuple[Host, Host], tmp_path: Path, revision: str, version: int
) -> None:
    server = Release(revision, tmp_path).etherws(hosts[0], "server", "--foreground")
    server.says("listening on ws://")
    client = hosts[1].etherws("client", "--foreground", "ws://192.0.2.1/")
    passes(hosts, server, client, version)
    # Without a bridge there is one port: who comes again in the same attempt gets it at once.
    assert server.output.count(" joined on ethws0, by version 2") == 1
    assert server.output.count(" joined on ethws0") == (1 if version == 2 else 2)
    assert "refused" not in server.output
    said = "it chose etherws.v2 without the header Etherws-Features: a proxy on the way removed the header, or it is an"
    assert client.output.count(said) == (0 if version == 2 else 1)
    assert client.output.count("WARNING") == (0 if version == 2 else 1)


@pytest.mark.parametrize(("revision", "version"), RELEASES.items())
def test_a_releases_client_joins_the_checkouts_server(
    hosts: tuple[Host, Host], tmp_path: Path, revision: str, version: int
) -> None:
    server = hosts[0].etherws("server", "--foreground")
    server.says("listening on ws://")
    client = Release(revision, tmp_path).etherws(hosts[1], "client", "--foreground", "ws://192.0.2.1/")
    passes(hosts, server, client, version)
    said = "192.0.2.2 gets version 1: it offers version 2, without the header Etherws-Features: a proxy on the way"
    assert server.output.count(said) == (0 if version == 2 else 1)


def test_a_releases_code_is_its_own(host: Host, tmp_path: Path) -> None:
    Release(next(iter(RELEASES)), tmp_path)
    # As `python -m`, it looks into the working directory first.
    found = host.run(sys.executable, "-c", "import etherws.settings as found; print(found.__file__)", cwd=tmp_path)
    assert found.ends() == 0
    assert Path(found.output.strip()) == tmp_path / "etherws" / "settings.py"
