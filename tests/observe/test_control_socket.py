"""The control socket's file: where it is, what it replaces, and what it leaves alone."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from etherws.errors import ListenError
from etherws.observe import control_socket
from etherws.observe.control_socket import ControlSocket, usual_path


@pytest.fixture
def path(folder: Path) -> Path:
    """Where it is to be: in a folder that is not there."""
    return folder / "server-ethws0" / "control"


def answers(path: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_it_is_for_its_user_alone_whatever_the_umask_is(path: Path) -> None:
    before = os.umask(0)
    try:
        control = ControlSocket(str(path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert answers(path)
    control.close()
    assert not path.exists()
    # The folder was made for it.
    assert not path.parent.exists()


def test_a_folder_that_was_there_stays(path: Path) -> None:
    path.parent.mkdir()
    (path.parent / "other").touch()
    ControlSocket(str(path)).close()
    assert os.listdir(path.parent) == ["other"]


def test_the_file_of_a_process_that_died_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.exists()
    control = ControlSocket(str(path))
    assert answers(path)
    control.close()


def test_a_process_that_answers_keeps_its_file(path: Path) -> None:
    first = ControlSocket(str(path))
    with pytest.raises(ListenError, match=r"control: another process answers there; stop it, or choose another path"):
        ControlSocket(str(path))
    assert answers(path)
    first.close()


def test_one_whose_queue_is_full_is_alive(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(ListenError, match="another process answers there"):
            ControlSocket(str(path))
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling", "fifo"])
def test_what_is_no_socket_is_left_alone(path: Path, kind: str) -> None:
    path.parent.mkdir()
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        (target := path.parent / "target").write_text("precious")
        path.symlink_to(target if kind == "link" else path.parent / "nowhere")
    with pytest.raises(ListenError, match="this file is not a socket"):
        ControlSocket(str(path))
    assert os.path.lexists(path)
    assert not (path.parent / "nowhere").exists()


def test_it_is_not_removed_if_it_is_anothers_by_then(path: Path) -> None:
    first = ControlSocket(str(path))
    path.unlink()
    second = ControlSocket(str(path))
    first.close()
    assert answers(path)
    second.close()
    # Removed by somebody: no error.
    third = ControlSocket(str(path))
    path.unlink()
    third.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of another user")
def test_a_foreign_folder_or_file_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    os.chown(path.parent, 65534, 65534)
    with pytest.raises(ListenError, match="its folder belongs to another user, 65534; name another file by --control"):
        ControlSocket(str(path))
    os.chown(path.parent, 0, 0)
    for mode in (0o1777, 0o755):
        path.parent.chmod(mode)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        os.chown(path, 65534, 65534)
        if mode == 0o1777:
            with pytest.raises(ListenError, match="control belongs to another user, 65534; remove it"):
                ControlSocket(str(path))
            # Of the user that this process will be.
            ControlSocket(str(path), (65534, 65534)).close()
        else:
            # Only root can have put it there.
            ControlSocket(str(path)).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of another user")
def test_only_a_folder_that_was_made_for_it_is_given_away(path: Path) -> None:
    control = ControlSocket(str(path), (65534, 65534))
    assert (path.stat().st_uid, path.parent.stat().st_uid) == (65534, 65534)
    control.close()
    path.parent.mkdir()
    control = ControlSocket(str(path), (65534, 65534))
    assert (path.stat().st_uid, path.parent.stat().st_uid) == (65534, 0)
    control.close()


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_folder_in_which_others_can_put_files_is_not_used(path: Path, mode: int) -> None:
    path.parent.mkdir()
    path.parent.chmod(mode)
    with pytest.raises(ListenError, match="its folder may be written to by other users"):
        ControlSocket(str(path))
    # As /tmp, where only its owner can replace a file.
    path.parent.chmod(mode | stat.S_ISVTX)
    ControlSocket(str(path)).close()


def test_a_folder_that_is_a_link_or_a_file_is_not_used(path: Path) -> None:
    (path.parent.parent / "elsewhere").mkdir()
    path.parent.symlink_to(path.parent.parent / "elsewhere")
    with pytest.raises(ListenError, match="its folder is no folder"):
        ControlSocket(str(path))
    path.parent.unlink()
    path.parent.write_text("")
    with pytest.raises(ListenError, match="its folder is no folder"):
        ControlSocket(str(path))


def test_a_folder_that_cannot_be_made_is_said(folder: Path) -> None:
    with pytest.raises(ListenError, match=r"a/b/c/control: No such file or directory; name another file by --control"):
        ControlSocket(str(folder / "a" / "b" / "c" / "control"))
    with pytest.raises(ListenError, match="has at most 107 bytes, and this one has"):
        ControlSocket(str(folder / ("x" * 100) / "control"))
    assert os.listdir(folder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of another user")
def test_roots_folder_goes_to_who_runs_now(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --run-as, and without it again, after a process that died or ended."""
    monkeypatch.setattr(control_socket, "RUN_FOLDER", str(folder))
    path = folder / "server-ethws0" / "control"
    for owner in ((65534, 65534), None, (65533, 65533)):
        control = ControlSocket(str(path), owner)
        user = (owner or (0, 0))[0]
        assert path.stat().st_uid == path.parent.stat().st_uid == user
        assert usual_path("server", "ethws0", {}, 0) == str(path)
        # It dies.
        control.listener.close()
    monkeypatch.setattr(os, "geteuid", lambda: 65533)
    # The next image of the process is not root's.
    assert usual_path("server", "ethws0", {}) == str(path)
    assert usual_path("client", "ethws0", {}) == ""


@pytest.mark.parametrize(
    ("environ", "user", "path"),
    [
        ({}, 0, "/run/etherws/client-tap9/control"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, 0, "/run/etherws/client-tap9/control"),
        ({"RUNTIME_DIRECTORY": "/run/etherws/client-lan"}, 0, "/run/etherws/client-lan/control"),
        ({"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/x"}, 7, "/run/a/control"),
        ({"RUNTIME_DIRECTORY": "relative"}, 0, "/run/etherws/client-tap9/control"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, 7, "/run/user/7/etherws/client-tap9/control"),
        ({"XDG_RUNTIME_DIR": "relative"}, 7, ""),
        ({}, 7, ""),
    ],
)
def test_where_it_is(environ: dict[str, str], user: int, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_socket, "_owner", lambda _: None)
    assert usual_path("client", "tap9", environ, user) == path
