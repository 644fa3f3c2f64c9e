"""The units that ``etherws init --enable`` starts: systemd is played by a script. tests/vm/ has the real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from etherws.cli.init import units
from etherws.errors import SettingsError, SystemdSlow


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's folder of units, with a systemctl that notes its arguments in ``calls``."""
    folder, program = tmp_path / "units", tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\ntest ! -e {tmp_path}/fails || {{ echo no >&2; exit 1; }}\n'
    )
    program.chmod(0o755)
    command = tmp_path / "bin" / "etherws"
    command.touch(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(units, "_FOLDERS", (str(folder),))
    monkeypatch.setattr("sys.argv", [str(command)])
    return folder


def calls(folder: Path) -> list[str]:
    return (folder.parent / "calls").read_text().splitlines()


def test_a_unit_is_written_and_started(systemd: Path) -> None:
    units.enable("server", "lan", restart=False)
    text = (systemd / "etherws-server@.service").read_text()
    assert f"ExecStart={systemd.parent}/bin/etherws server\n" in text
    assert "/usr/local/bin/etherws" not in text
    assert calls(systemd) == [
        "daemon-reload",
        "enable --quiet etherws-server@lan.service",
        "start etherws-server@lan.service",
    ]
    # What is there is not written again.
    (systemd / "etherws-server@.service").write_text("own")
    units.enable("server", "lan", restart=False)
    assert (systemd / "etherws-server@.service").read_text() == "own"
    units.enable("client", "lan", restart=True)
    assert calls(systemd)[-1] == "restart etherws-client@lan.service"


def test_who_starts_it_later_is_told_of_the_unit(systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "SOURCES", units.SOURCES[-1:])
    unit, start = units.SOURCES[0] / "etherws-client@.service", "systemctl enable --now etherws-client@lan"
    written = f"sed s,/usr/local/bin/etherws,{systemd.parent}/bin/etherws, {unit} >{systemd}/{unit.name}"
    assert units.later("client", "lan") == f"{written} && {start}"
    blank = systemd.parent / "a checkout"
    blank.mkdir()
    (blank / unit.name).touch()
    with monkeypatch.context() as patch:
        patch.setattr(units, "SOURCES", (blank,))
        assert f" '{blank}/{unit.name}' >" in units.later("client", "lan")
    monkeypatch.setattr("shutil.which", lambda _: "/usr/local/bin/etherws")
    assert units.later("client", "lan") == f"cp {unit} {systemd}/ && {start}"
    monkeypatch.setattr(units, "SOURCES", ())
    assert units.later("client", "lan") == start
    systemd.mkdir()
    (systemd / "etherws-server@.service").touch()
    assert units.later("server", "lan") == "systemctl enable --now etherws-server@lan"


def test_what_systemd_refuses_is_said(systemd: Path) -> None:
    (systemd.parent / "fails").touch()
    with pytest.raises(SettingsError, match="systemctl daemon-reload failed: no; the set-up itself is written"):
        units.enable("server", "lan", restart=False)


def test_a_start_that_waits_goes_on(systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = systemd.parent / "bin/systemctl"
    program.write_text(f"{program.read_text()}exec sleep 20\n")
    monkeypatch.setattr(units, "TIMEOUT", 0.2)
    with pytest.raises(SettingsError, match=r"systemctl start x takes longer than 0\.2 s"):
        units._systemctl("start", "x")

    said: list[str] = []

    def waits(*arguments: str) -> None:
        if arguments[0] == "start":
            raise SystemdSlow

    monkeypatch.setattr(units, "tell", said.append)
    monkeypatch.setattr(units, "_systemctl", waits)
    units.enable("client", "lan", restart=False)
    assert said[-1].startswith("etherws-client@lan.service still starts, and starts at each boot")


def test_a_unit_that_runs_reads_its_files_again(systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "can_enable", lambda: None)
    units.reload("server", "lan")
    assert calls(systemd) == ["is-active --quiet etherws-server@lan.service", "reload etherws-server@lan.service"]
    (systemd.parent / "fails").touch()
    units.reload("server", "lan")
    assert len(calls(systemd)) == 3


def test_a_command_in_a_home_directory_is_refused(systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/root/venv/bin/etherws")
    with pytest.raises(SettingsError, match="is in a home directory, which the unit does not see"):
        units.enable("server", "lan", restart=False)
    link = systemd.parent / "link"
    link.symlink_to("/home/me/venv/bin/etherws")
    monkeypatch.setattr("shutil.which", lambda _: str(link))
    with pytest.raises(SettingsError, match="is in a home directory"):
        units.enable("server", "lan", restart=False)
    # Nor is it told to who does it later.
    assert units.later("server", "lan").startswith(f"not yet: {link} is in a home directory")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(SettingsError, match="there is no command etherws"):
        units.enable("server", "lan", restart=False)


def test_a_command_that_root_must_not_run_is_refused(systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = systemd.parent / "bin" / "etherws"
    command.chmod(0o757)
    with pytest.raises(SettingsError, match=f"can change {command}, which root would run .* chmod o-w {command}$"):
        units.enable("server", "lan", restart=False)
    assert not systemd.exists()
    monkeypatch.setattr("shutil.which", lambda _: "/opt/my venv/bin/etherws")
    with pytest.raises(SettingsError, match="has characters that a unit cannot have"):
        units.enable("server", "lan", restart=False)


def test_who_can_enable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.isdir", lambda _: True)
    monkeypatch.setattr("shutil.which", lambda _: "/bin/systemctl")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    units.can_enable()
    monkeypatch.setattr("os.geteuid", lambda: 1)
    with pytest.raises(SettingsError, match="needs root"):
        units.can_enable()
    monkeypatch.setattr("os.path.isdir", lambda _: False)
    with pytest.raises(SettingsError, match="needs systemd"):
        units.can_enable()


def test_it_is_asked_for_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "ask", lambda *_: "Yes")
    monkeypatch.setattr(units, "can_enable", lambda: None)
    assert [units.wanted(True), units.wanted(False)] == [True, True]
    monkeypatch.setattr(units, "ask", lambda *_: None)
    assert [units.wanted(True), units.wanted(False)] == [True, False]

    def cannot() -> None:
        raise SettingsError("no systemd")

    monkeypatch.setattr(units, "can_enable", cannot)
    assert not units.wanted(False)
    with pytest.raises(SettingsError, match="no systemd"):
        units.wanted(True)


def test_a_unit_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "SOURCES", ())
    with pytest.raises(SettingsError, match=r"there is no x@\.service"):
        units.unit_text("x@.service", "etherws")
