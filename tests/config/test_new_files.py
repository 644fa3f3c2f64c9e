"""Files that are made together, or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from etherws.config.new_files import NewFiles
from etherws.errors import SettingsError


def test_files_are_made_with_their_folder_and_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "etherws" / "server" / "lan.key"
    synced: list[tuple[bool, bool]] = []
    sync = os.fsync

    def noted(file: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(file).st_mode), path.exists()))
        sync(file)

    monkeypatch.setattr(os, "fsync", noted)
    with NewFiles() as files:
        files.write(str(path), b"key", 0o600)
    assert path.read_bytes() == b"key"
    # Its content is on the disk before its name is, and that before anybody hears of it.
    assert synced == [(False, False), (True, True)]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [*path.parent.iterdir()] == [path]
    with NewFiles() as files:
        files.write(str(path), b"other", 0o640, replace=True)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"other", 0o640)


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("old")

    def make() -> None:
        with NewFiles() as files:
            (tmp_path / "c").write_text("by another")
            files.note(str(tmp_path / "c"))
            files.note(str(tmp_path / "never made"))
            files.write(str(tmp_path / "a"), b"new", 0o600)
            files.write(str(tmp_path / "b"), b"new", 0o600)

    with pytest.raises(SettingsError, match="b is there already; nothing was changed"):
        make()
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("b", "old")]


def test_a_file_that_was_replaced_is_back_if_another_fails(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()

    def make(last: str) -> None:
        with NewFiles() as files:
            files.write(str(tmp_path / "a"), b"new", 0o600, replace=True)
            files.write(str(tmp_path / "c"), b"new", 0o600, replace=True)
            files.write(str(tmp_path / last), b"new", 0o600, replace=True)

    with pytest.raises(SettingsError, match=r"cannot write .*/b: "):
        make("b")
    assert (tmp_path / "a").read_text() == "old"
    assert {each.name for each in tmp_path.iterdir()} == {"a", "b"}
    make("d")
    assert (tmp_path / "a").read_text() == "new"
    assert {each.name for each in tmp_path.iterdir()} == {"a", "b", "c", "d"}


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with NewFiles() as files, pytest.raises(SettingsError, match=r"cannot write .*; see --config-dir"):
        files.write(str(tmp_path / "file" / "x"), b"", 0o600)


def test_a_right_that_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.makedirs", denied)
    with NewFiles() as files, pytest.raises(SettingsError, match="run it as root, or name another --config-dir"):
        files.write(str(tmp_path / "x"), b"", 0o600)
