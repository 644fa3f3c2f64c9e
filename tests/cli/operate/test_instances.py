"""Which server or client is meant: by its folder, its unit, its interface, or because no other runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from etherws.cli.operate import instances
from etherws.cli.operate.control import Control
from etherws.errors import ControlError, NotAllowed, NotRunning
from tests.lab.control import fake
from tests.lab.subjects import FakeServer


def left(machine: Path, name: str) -> None:
    """What a process of this name has left that was killed."""
    (machine / name).mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(machine / name / "control"))


@pytest.fixture
def three(machine: Path) -> Iterator[Path]:
    """A machine with two servers and a client."""

    class Client(FakeServer):
        role = "client"

    with ExitStack() as stack:
        for name, subject in (
            ("server-lan", FakeServer(2)),
            ("client-lan", Client(0, 0)),
            ("server-ethws7", FakeServer(0)),
        ):
            stack.enter_context(fake(machine / name / "control", subject))
        yield machine


def test_where_control_sockets_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert instances.folders() == ["/run/etherws", "/run/user/7/etherws"]
    # Root does not look at what users can put there.
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert instances.folders() == ["/run/etherws"]
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    for nowhere in ("", "here"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", nowhere)
        assert instances.folders() == ["/run/etherws"]


def test_nothing_runs(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = r"neither a server nor a client of etherws runs .* by the same --control FILE"
    with pytest.raises(NotRunning, match=words) as caught:
        instances.chosen(None, None)
    assert caught.value.exit_status == 69
    with pytest.raises(NotRunning, match=r"nothing called lan runs on this machine$"):
        instances.chosen("lan", None)
    # Other folders and files are not ours.
    (machine / "client-x").mkdir()
    (machine / "server-file").write_text("")
    (machine / "other").mkdir()
    (machine / "other" / "control").write_text("")
    assert not instances.all_instances()
    monkeypatch.setattr(instances, "folders", lambda: [str(machine / "none")])
    assert not instances.all_instances()


def test_the_only_one_needs_no_name(machine: Path) -> None:
    left(machine, "server-old")
    with pytest.raises(NotRunning, match="server-old does not run: nobody listens"):
        instances.chosen(None, None).get("/status")
    with fake(machine / "client-lan" / "control", FakeServer()):
        # What died is not meant.
        assert instances.chosen(None, None).name == "client-lan"
        with pytest.raises(NotRunning, match="nothing called x runs on this machine; there is client-lan, server-old"):
            instances.chosen("x", None)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("server-lan", "server-lan"),
        ("client-lan", "client-lan"),
        ("etherws-server@lan", "server-lan"),
        ("etherws-client@lan.service", "client-lan"),
        ("ethws7", "server-ethws7"),
        # The second session's interface.
        ("ethws1", "server-lan"),
    ],
)
def test_one_is_found_by_its_name(three: Path, name: str, found: str) -> None:
    assert instances.chosen(name, None).name == found


def test_several_that_match_are_listed(three: Path) -> None:
    left(three, "server-dead")
    with pytest.raises(ControlError, match="several are called lan: client-lan, server-lan; name one of them"):
        instances.chosen("lan", None)
    with pytest.raises(ControlError, match="several run here: client-lan, server-ethws7, server-lan; name one"):
        instances.chosen(None, None)
    # A client has no clients to end.
    assert instances.chosen("lan", None, role="server").name == "server-lan"
    assert instances.chosen("client-lan", None, role="server").name == "client-lan"
    # By its interface: each of these has ethws0.
    with pytest.raises(ControlError, match="several are called ethws0: client-lan, server-ethws7, server-lan"):
        instances.chosen("ethws0", None)


def test_two_of_one_name_are_told_apart_by_their_sockets(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = [machine / "root", machine / "user"]
    monkeypatch.setattr(instances, "folders", lambda: [str(each) for each in where])
    with ExitStack() as stack:
        for each in where:
            stack.enter_context(fake(each / "server-lan" / "control", FakeServer()))
        with pytest.raises(ControlError, match=r"several are called lan: server-lan \(/.*/root/server-lan/control\), "):
            instances.chosen("lan", None)
        path = str(where[1] / "server-lan" / "control")
        assert instances.chosen(None, path).get("/status")["role"] == "server"


def test_a_socket_is_named_directly(machine: Path) -> None:
    found = instances.chosen(None, "/x/control", role="server")
    assert (found.path, found.name) == ("/x/control", "/x/control")


def test_a_folder_that_is_closed(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_: str) -> list[str]:
        raise PermissionError

    monkeypatch.setattr(os, "listdir", closed)
    with pytest.raises(NotAllowed, match=r"only root may look into /.*; try sudo"):
        instances.all_instances()
    monkeypatch.undo()
    monkeypatch.setattr(instances, "folders", lambda: [str(machine)])

    # The folder of one instance is closed.
    def unseen(_: str) -> None:
        raise PermissionError

    (machine / "server-lan").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", unseen)
        assert [each.name for each in instances.all_instances()] == ["server-lan"]


def test_one_that_does_not_answer_is_not_asked_for_its_interface(three: Path) -> None:
    left(three, "server-dead")
    found = [Control(str(three / "server-dead" / "control"), "server-dead")]
    assert not instances.matching(found, "ethws0")
    assert instances._listens(Control("/" + "x" * 200))
