"""etherws kick, stop, reload, drain and page: what is told to the process, and what is said of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from etherws.cli.commands import main
from etherws.cli.operate import operating
from tests.lab.control import Fake, fake
from tests.lab.subjects import FakeServer


def run(*arguments: str) -> Result:
    """A command, to its end."""
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder that stands for this process in /proc: no service of systemd."""
    (tmp_path / str(os.getpid())).mkdir()
    monkeypatch.setattr(operating, "Path", lambda *parts: tmp_path.joinpath(*parts[1:]))
    return tmp_path / str(os.getpid())


def test_a_client_is_ended(machine: Path) -> None:
    subject = FakeServer(3)
    with fake(machine / "server-lan" / "control", subject):
        done = run("kick", "client-1")
        assert (done.exit_code, done.stdout) == (0, "ended: client-1\n")
        done = run("kick", "lan", "203.0.113.2", "--for", "10m")
        assert (done.exit_code, done.stdout) == (0, "ended: client-2; refused for 10 min\n")
        assert subject.told == [
            ("kick", "client-1", 0.0, "the control socket"),
            ("kick", "203.0.113.2", 600.0, "the control socket"),
        ]
        done = run("kick", "nobody")
        assert (done.exit_code, "no client is called 'nobody'" in done.stderr) == (1, True)
        assert run("kick").exit_code == run("kick", "a", "b", "c").exit_code == 2
        assert run("kick", "x", "--for", "soon").exit_code == 2


def test_a_server_is_drained_and_reloaded(machine: Path, service: Path) -> None:
    subject = FakeServer(3)
    with fake(machine / "server-lan" / "control", subject):
        done = run("drain", "lan", "--over", "90s")
        words = "server-lan is draining: nobody may join, and all sessions end within 1 min 30 s\n"
        assert (done.exit_code, done.stdout) == (0, words)
        assert "server-lan was told to reload" in run("reload").stdout
        assert run("drain").exit_code == 0
        assert subject.told == [
            ("drain", 90.0, "the control socket"),
            ("reload",),
            ("drain", 300.0, "the control socket"),
        ]
        assert "it is draining: nobody may join" in run("status").stdout


def test_a_process_is_stopped_and_its_end_is_waited_for(
    machine: Path, service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = machine / "server-lan" / "control"
    subject = FakeServer()
    process = Fake(path, subject)
    looks: list[int] = []

    def wait(_: float) -> None:
        looks.append(1)
        if len(looks) == 3:
            process.close()

    monkeypatch.setattr(time, "sleep", wait)
    done = run("stop", "lan")
    assert (done.exit_code, done.stdout, subject.told) == (0, "server-lan has ended\n", [("stop",)])
    assert len(looks) == 3


def test_a_process_that_does_not_end_is_said_to_go_on(
    machine: Path, service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operating, "STOP_TIMEOUT", 0.05)
    with fake(machine / "server-lan" / "control", FakeServer()):
        done = run("stop")
        assert (done.exit_code, "has not ended after 0.05 s; see its log" in done.stderr) == (75, True)


@pytest.mark.parametrize(
    ("group", "command"),
    [
        (
            r"0::/system.slice/system-etherws\x2dserver.slice/etherws-server@lan.service",
            "systemctl {} etherws-server@lan.service",
        ),
        ("0::/user.slice/user-7.slice/user@7.service/app.slice/lan.service", "systemctl --user {} lan.service"),
        ("12:pids:/x\n1:name=systemd:/system.slice/lan.service", "systemctl {} lan.service"),
    ],
)
def test_what_systemd_does_better_is_left_to_it(machine: Path, service: Path, group: str, command: str) -> None:
    subject = FakeServer()
    with fake(machine / "server-lan" / "control", subject):
        (service / "environ").write_bytes(b"A=b\0NOTIFY_SOCKET=/run/systemd/notify\0ETHERWS_COPIES=/run/x\0")
        (service / "cgroup").write_text(group + "\n")
        for verb in ("stop", "reload"):
            done = run(verb)
            assert done.exit_code == 1
            assert f"write: {command.format(verb)}\n" in done.stderr
        # A unit that reads its files itself can be told.
        (service / "environ").write_bytes(b"NOTIFY_SOCKET=/run/systemd/notify\0")
        assert run("reload").exit_code == 0
        # A container, or what a service has started in the background.
        (service / "cgroup").write_text("0::/\n")
        assert run("reload").exit_code == 0
        (service / "environ").write_bytes(b"A=b\0")
        (service / "cgroup").write_text(group + "\n")
        assert run("reload").exit_code == 0
        assert subject.told == [("reload",)] * 3


def test_the_pages_address_is_printed(machine: Path) -> None:
    with fake(machine / "server-lan" / "control", FakeServer(), monitor="0"):
        done = run("page")
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.startswith("http://127.0.0.1:")
        assert "/login?token=" in done.stdout
    with fake(machine / "server-lan" / "control", FakeServer()):
        done = run("page")
        assert (done.exit_code, "--monitor" in done.stderr) == (1, True)
