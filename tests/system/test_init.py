"""From nothing to a link: etherws init on both sides, one line between, and both started by --config."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from etherws.cli.commands import main
from etherws.cli.init import units
from etherws.config.invitation import parse
from tests.lab.hosts import Host, until


def typed(host: Host, *arguments: str, line: str = "") -> Any:
    """What a command comes to on this machine."""
    with host.namespace.inside():
        return CliRunner().invoke(main, ["init", *arguments], input=line)


def test_two_machines_become_one_lan(hosts: tuple[Host, Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Units of the machine are not touched.
    monkeypatch.setattr(units, "reload", lambda *_: None)
    one, two = hosts
    server_file, client_file = tmp_path / "server" / "lan.toml", tmp_path / "client" / "lan.toml"
    at_server = ("server", "--config-dir", str(server_file.parent), "--client", "branch1")
    at_client = ("client", "--config-dir", str(client_file.parent))
    line = typed(one, *at_server, "--host", "192.0.2.1", "--bridge", "br0").stdout
    server = one.etherws("server", "--foreground", "--config", str(server_file))
    server.says("listening on wss://")

    # A line of another server, and one whose token has ended.
    other = replace(parse(line, time.time()), pin=f"sha256//{'A' * 43}=").line()
    assert "the line comes from another server" in typed(two, *at_client, line=other).output
    old, line = line, typed(one, *at_server, "--renew").stdout
    until(lambda: "the line is old" in typed(two, *at_client, line=old).output, "the server to read its tokens again")
    assert not client_file.parent.exists()

    done = typed(two, *at_client, line=line)
    assert "The server lets this client in." in done.output, done.output
    client = two.etherws("client", "--foreground", "--config", str(client_file))
    client.says("connected to wss://")
    one.add_address("br0", "10.0.0.1/24")
    two.add_address("ethws0", "10.0.0.2/24")
    ping = two.program("ping")
    until(lambda: two.run(ping, "-c1", "-W1", "10.0.0.1").ends() == 0, "a ping through the tunnel")

    # What is read again, and when.
    text = server_file.read_text()
    server_file.write_text(text + "mtu = 3\n")
    server.signal(signal.SIGHUP)
    server.says(f"{server_file} has changed: that counts after a restart, or after SIGUSR2")
    server.signal(signal.SIGUSR2)
    server.says(f"no new image takes over, and this one goes on: {server.argv[0]} ends with status 2: {server_file}:")
    server_file.write_text(text + "no-such-key = 3\n")
    server.signal(signal.SIGHUP)
    server_file.write_text(text + 'log-level = "debug"\n')
    server.signal(signal.SIGUSR2)
    server.says("handing over to version")
    server.says(" DEBUG ")
    until(lambda: two.run(ping, "-c1", "-W1", "10.0.0.1").ends() == 0, "a ping after the hand-over")
