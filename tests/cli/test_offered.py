"""What a shell is offered of this machine, and that it is offered nothing where nothing can be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from etherws.cli import offered
from etherws.cli.commands import main


def words(*given: str) -> list[str]:
    """What is offered for the last of these words."""
    shell = ShellComplete(main, {}, "etherws", "_ETHERWS_COMPLETE")
    return [item.value for item in shell.get_completions([*given[:-1]], given[-1])]


@pytest.mark.parametrize("command", [("server",), ("client",), ("init", "server"), ("init", "client")])
def test_interfaces_of_their_kind(command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offered, "INTERFACES", str(tmp_path))
    assert words(*command, "--bridge", "") == words(*command, "--device", "") == []
    for name in ("br1/bridge", "br0/bridge", "virbr0/bridge", "ethws0/tun_flags", "eth0/carrier"):
        (tmp_path / name).mkdir(parents=True)
    assert words(*command, "--bridge", "") == ["br0", "br1", "virbr0"]
    assert words(*command, "--bridge", "br") == ["br0", "br1"]
    assert words(*command, "--device", "") == ["ethws0"]


def test_congestion_controls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offered, "CONGESTION", str(tmp_path / "list"))
    assert words("client", "--congestion", "") == ["auto"]
    (tmp_path / "list").write_text("reno cubic bbr\n")
    assert words("client", "--congestion", "") == ["auto", "reno", "cubic", "bbr"]
    assert words("server", "--congestion", "b") == ["bbr"]


@pytest.mark.parametrize("role", ["server", "client"])
def test_what_is_set_up(role: str, tmp_path: Path) -> None:
    assert words("init", role, "--config-dir", str(tmp_path / "gone"), "") == []
    for name in ("lan.toml", "lab.toml", "lan.crt", "office.toml", "a\x1b[31mb.toml", "$(reboot) *.toml", ".toml"):
        (tmp_path / name).touch()
    assert words("init", role, "--config-dir", str(tmp_path), "") == ["lab", "lan", "office"]
    assert words("init", role, "--config-dir", str(tmp_path), "la") == ["lab", "lan"]


def test_the_folder_of_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listdir", {"/etc/etherws/server": ["lan.toml"], "/etc/etherws/client": ["lab.toml"]}.get)
    assert words("init", "server", "l") == ["lan"]
    assert words("init", "client", "l") == ["lab"]
