"""What root prepares for a unit, with a socket that plays systemd."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from etherws import file_names
from etherws.cli.commands import main
from etherws.kernel import loop_watch, packet_sockets
from etherws.small_files import read_file
from tests.lab.hosts import Host

USER, GROUP = 7777, 7778


class Unit:
    """The environment of a unit."""

    def __init__(self, host: Host, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._host, self._monkeypatch = host, monkeypatch
        self.copies, self._owned = folder / "copies", folder / "runtime"
        self._owned.mkdir()
        os.chown(self._owned, USER, GROUP)
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(folder / "notify"))
        self.manager.setblocking(False)
        self._environ = {
            "NOTIFY_SOCKET": str(folder / "notify"),
            "ETHERWS_COPIES": str(self.copies),
            "RUNTIME_DIRECTORY": f"{self._owned}:{folder}",
        }

    def stage(self, *arguments: str, **environ: str) -> str:
        """Run the command; return what it prints."""
        with self._monkeypatch.context() as patch, self._host.namespace.inside():
            for name, value in {**self._environ, **environ}.items():
                patch.setenv(name, value)
            done = CliRunner().invoke(main, ["stage", *arguments])
            # A process of its own would end.
            packet_sockets.close()
        assert done.exit_code == 0, done.output
        return done.output

    def told(self) -> dict[str, list[int]]:
        """The descriptors that systemd was given, by name; those that were dropped are not in it."""
        found: dict[str, list[int]] = {}
        while True:
            try:
                text, descriptors, _, _ = socket.recv_fds(self.manager, 4096, 253)
            except BlockingIOError:
                return found
            lines = dict(line.split("=", 1) for line in text.decode().split("\n"))
            if "FDSTOREREMOVE" in lines:
                found.pop(lines["FDNAME"], None)
            else:
                found.setdefault(lines["FDNAME"], []).extend(descriptors)


@pytest.fixture
def unit(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Unit]:
    made = Unit(host, tmp_path, monkeypatch)
    with made.manager:
        yield made
    file_names.use_copies(None)


def test_the_server_gets_its_files_its_port_and_packet_sockets(unit: Unit, host: Host, tmp_path: Path) -> None:
    for name in ("key", "old"):
        (tmp_path / name).write_text(name)
    unit.stage("server", ETHERWS_SERVER_KEYFILE=str(tmp_path / "old"))
    assert unit.told() == {}
    environ = {"ETHERWS_SERVER_KEYFILE": str(tmp_path / "key"), "ETHERWS_SERVER_CERTFILE": str(tmp_path / "none")}
    output = unit.stage("--open", "server", ETHERWS_SERVER_PIDFILE=str(tmp_path / "notify"), **environ)
    assert output == f"<4>cannot read {tmp_path / 'none'}: No such file or directory\n"
    file_names.use_copies(str(unit.copies))
    assert read_file(str(tmp_path / "key"), 10) == b"key"
    assert sorted(path.name.partition("-")[2] for path in unit.copies.iterdir()) == ["key", "none"]
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in unit.copies.glob("*-key")} == {(0, GROUP)}
    found = unit.told()
    assert found.keys() == {"listen", "packet-sockets"}
    assert len(found["packet-sockets"]) == packet_sockets.SERVER_NEEDS == loop_watch.BRIDGES_MAX + 2
    with socket.socket(fileno=found["listen"][0]) as sock:
        assert sock.getsockname()[1] == 443
        # The next start finds that it is open; who has it is told, unless that is systemd.
        output = unit.stage("--open", "server", **environ, ETHERWS_SERVER_ADDRESS="::")
        assert "port 443 is taken by" in output
    found.update(unit.told())
    for descriptor in found["packet-sockets"]:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("role", "environ", "names"),
    [
        ("client", {}, {"packet-sockets"}),
        ("server", {"ETHERWS_SERVER_PORT": "8080"}, {"packet-sockets"}),
        ("server", {"ETHERWS_SERVER_PORT": "0"}, {"packet-sockets"}),
        ("server", {"ETHERWS_SERVER_ADDRESS": "unix:@x"}, {"packet-sockets"}),
        ("server", {"ETHERWS_SERVER_PORT": "many", "ETHERWS_SERVER_DEVICE": "a b"}, {"packet-sockets", "listen"}),
    ],
)
def test_only_what_takes_root_is_opened(unit: Unit, role: str, environ: dict[str, str], names: set[str]) -> None:
    assert unit.stage("--open", role, **environ) == ""
    found = unit.told()
    assert found.keys() == names
    for descriptors in found.values():
        for descriptor in descriptors:
            os.close(descriptor)


def test_what_a_configuration_names_is_copied_and_the_configuration_too(
    unit: Unit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, credentials = tmp_path / "lan.toml", tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "tokens").write_text("tokens")
    (tmp_path / "key").write_text("key")
    (tmp_path / "key").chmod(0o600)
    config.write_text('port = 8080\nkeyfile = "key"\ntoken-file = "credential:tokens"\n')
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    environ = {"ETHERWS_SERVER_CONFIG": f"-{config}", "ETHERWS_SERVER_POLICY": str(tmp_path / "none")}
    assert "cannot read" in unit.stage("server", **environ)
    file_names.use_copies(str(unit.copies))
    assert {os.path.basename(file_names.to_read(str(path))) != path.name for path in (config, tmp_path / "key")} == {
        True
    }
    assert len(os.listdir(unit.copies)) == 3
    # The command itself says what is wrong with it.
    config.write_text("port = ")
    assert unit.stage("server", ETHERWS_SERVER_CONFIG=str(config)) == ""
    assert read_file(config, 100) == b"port = "
    # A process that runs still needs what its other half named.
    assert len(os.listdir(unit.copies)) == 3
    config.unlink()
    assert unit.stage("server", ETHERWS_SERVER_CONFIG=f"-{config}") == ""
    assert os.listdir(unit.copies) == []


def test_it_is_for_units_only(unit: Unit, host: Host) -> None:
    process = host.run(sys.executable, "-m", "etherws", "stage", "server")
    assert process.ends() == 1
    assert "this command is for the units in contrib/" in process.output
    unit.copies.symlink_to("/")
    process = host.run(
        *(sys.executable, "-m", "etherws", "stage", "server"),
        env={"ETHERWS_COPIES": str(unit.copies), "RUNTIME_DIRECTORY": "/tmp"},
    )
    assert process.ends() == 1
    assert f"cannot copy files to {unit.copies}: it is there already" in process.output
