"""Programs of --up, --down and --change on both ends of a real link: through a loss, a new image, and the end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.lab import passwords
from tests.lab.hosts import Host

SCRIPT = """#!/bin/sh
echo "$ETHERWS_ROLE $ETHERWS_DEVICE $ETHERWS_HOOK $ETHERWS_REASON <$ETHERWS_IDENTITY> $ETHERWS_ADDRESSES as $(id -u)"
"""


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "program"
    path.write_text(SCRIPT)
    path.chmod(0o755)
    return str(path)


def test_both_ends_run_programs(hosts: tuple[Host, Host], tmp_path: Path, program: str) -> None:
    left, right = hosts
    name = "$(touch x); '`id`"
    htpasswd, policy = tmp_path / "users", tmp_path / "policy.toml"
    htpasswd.write_text(f"{name}:{passwords.hashed('secret')}\n")
    policy.write_text(f"[client.{json.dumps(name)}]\nchange = {json.dumps(program)}\n")
    options = ("--up", program, "--down", program, "--foreground", "--inet")
    server = left.etherws("server", *options, "10.9.0.1/24", "--htpasswd", str(htpasswd), "--policy", str(policy))
    server.says("listening")
    (tmp_path / "secret").write_text("secret\n")
    login = ("--user", name, "--password-file", str(tmp_path / "secret"), "--change", program)
    client = right.etherws("client", *options, "10.9.0.2/24", *login, "ws://192.0.2.1/")
    client.says("--up (connected) for ethws0: client ethws0 up connected <> 10.9.0.2/24 as 0")
    server.says(f"--up (connected) for ethws0: server ethws0 up connected <{name}> 10.9.0.1/24 as 0")
    Path(program).chmod(0o644)
    client.signal(signal.SIGUSR2)
    client.says("is not a program; chmod +x makes a script one")
    Path(program).chmod(0o755)
    client.signal(signal.SIGUSR2)
    client.says("--change (connected) for ethws0: client ethws0 change connected")
    server.says("--change (connected) for ethws0: server ethws0 change connected")
    server.signal(signal.SIGUSR2)
    client.says("--change (lost) for ethws0: client ethws0 change lost")
    server.says("--change (connected)", 2)
    client.says("--change (connected)", 2)
    client.stop()
    assert client.output.count("--up (") == client.output.count("--down (stopped) for ethws0: client") == 1
    server.says("--down (left) for ethws0: server ethws0 down left")
    server.stop()
    assert server.output.count("--up (") == server.output.count("--down (") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_runs_them_only_while_etherws_stays_root(host: Host, program: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    client = ("client", "--foreground", "--up", program, "ws://192.0.2.1/")
    refused = host.etherws(*client, "--run-as", "65534:65534", "--hook-user", "1:1")
    assert refused.ends() == 1
    assert "--hook-user 1:1: etherws can run programs as another user only while it stays root" in refused.output
    gone = host.etherws("client", "--foreground", "--down", f"{program}.no", "ws://192.0.2.1/")
    assert gone.ends() == 1
    assert "No such file or directory; name a program by its whole path" in gone.output
    started = host.etherws(*client, "--hook-user", "65534:65534")
    started.says("cannot connect")
    status = Path(f"/proc/{started.pid}/status").read_text()
    # CAP_KILL, CAP_SETGID, CAP_SETUID and CAP_NET_ADMIN.
    assert f"CapPrm:\t{1 << 5 | 1 << 6 | 1 << 7 | 1 << 12:016x}" in status
