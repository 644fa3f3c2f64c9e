"""The PID file: what it holds, who has it, and that no other file is touched."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from etherws.cli.process.pid_file import pid_file
from etherws.errors import DaemonError


def refused(path: Path, words: str) -> None:
    """It is refused, with these words, and the block does not run."""
    with pytest.raises(DaemonError, match=words), pid_file(str(path)):
        pytest.fail("it was taken")


def test_it_holds_the_process_id_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    for before in (None, "", "4194304\n", "1"):
        if before is not None:
            path.write_text(before)
            path.chmod(0o644)
        with pid_file(str(path)):
            assert path.read_text() == f"{os.getpid()}\n"
            refused(path, f"belongs to process {os.getpid()}, which still runs")
        assert not path.exists()
    with pid_file(None):
        assert not list(tmp_path.iterdir())


def test_no_link_is_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "pid"
    victim.write_text("4711\n")
    path.symlink_to(victim)
    refused(path, "it is a symbolic link, name the file itself")
    path.unlink()
    path.symlink_to("nowhere")
    refused(path, "it is a symbolic link")
    path.unlink()
    os.link(victim, path)
    refused(path, "not a regular file of this user with one name")
    assert victim.read_text() == "4711\n"
    assert sorted(os.listdir(tmp_path)) == ["pid", "victim"]


def test_only_a_file_of_ours_with_a_process_id_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    for content in ("root:x:0:0\n", "1\n2\n", "-1\n", "1 " * 60, "²\n"):
        path.write_text(content)
        refused(path, "it holds more than a process ID")
        assert path.read_text() == content
    path.write_text("1\n")
    path.chmod(0o666)
    with pid_file(str(path)):
        assert path.stat().st_mode & 0o777 == 0o644
    path.write_text("1\n")
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
        refused(path, "not a regular file of this user with one name")
    assert path.read_text() == "1\n"
    path.unlink()
    os.mkfifo(path)
    refused(path, "not a regular file of this user with one name")
    refused(tmp_path, "Is a directory")
    refused(tmp_path / "none" / "pid", r"cannot write --pidfile .*none/pid: No such file or directory$")


def test_a_folder_of_everyone_is_used_only_if_files_stay_their_owners(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    refused(tmp_path / "pid", "everyone may replace files in its folder")
    assert not list(tmp_path.iterdir())
    tmp_path.chmod(0o1777)
    with pid_file(str(tmp_path / "pid")):
        assert (tmp_path / "pid").exists()


@pytest.mark.parametrize("before", [None, "1\n"])
def test_a_full_disk_is_named_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    path = tmp_path / "pid"
    if before:
        path.write_text(before)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for call in ("pwrite", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            refused(path, f"cannot write --pidfile {path}: No space left on device; name another")
        assert not path.exists()


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    refused(tmp_path / "pid", "cannot lock --pidfile .*: No locks available")


def test_another_process_file_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with pid_file(str(path)):
        path.unlink()
        path.write_text("4711\n")
    assert path.read_text() == "4711\n"
    path.unlink()
    with pid_file(str(path)):
        path.unlink()
