"""Files that are read while connections run: nothing may wait, and nothing may be without end."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from etherws.small_files import cannot_read, changeable_by_all, is_open_to_all, read_file


def test_as_many_bytes_are_read_as_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"secret")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "file", 100) == b"secret"
    assert read_file(str(tmp_path / "link"), 3) == b"sec"


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(OSError, match="it is not a regular file"):
            read_file(path, 1)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none", 1)


def test_a_file_is_open_to_all_if_all_can_read_or_change_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for mode, open_to_all in ((0o600, False), (0o660, False), (0o604, True), (0o602, True), (0o644, True)):
        file.chmod(mode)
        assert is_open_to_all(file) == open_to_all
    assert not is_open_to_all(tmp_path / "none")


def test_what_all_can_change_is_the_file_or_a_folder_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file, link = folder / "file", tmp_path / "link"
    file.touch()
    link.symlink_to(file)
    assert changeable_by_all(file) == changeable_by_all(link) == changeable_by_all(tmp_path / "none") == ""
    file.chmod(0o602)
    assert (changeable_by_all(file), changeable_by_all(str(link))) == (str(file), str(link))
    file.chmod(0o604)
    folder.chmod(0o777)
    assert changeable_by_all(file) == changeable_by_all(link) == str(folder)
    # As /tmp: who owns a file there is the only one who can replace it.
    folder.chmod(0o1777)
    assert changeable_by_all(file) == ""
    (folder / "inner").mkdir()
    (folder / "inner/file").touch()
    folder.chmod(0o777)
    # Everybody can put another folder in the place of the inner one.
    assert changeable_by_all(folder / "inner/file") == str(folder)
    # In a unit's namespace all is read-only, but others see the folder elsewhere.
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    assert changeable_by_all(file) == str(folder)
    # Container managers mount such folders.
    monkeypatch.setattr(os.path, "ismount", lambda path: path == folder)
    assert changeable_by_all(file) == ""


def test_only_want_of_a_right_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "none"):
        assert cannot_read(str(path)) == ""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert cannot_read(str(tmp_path / "file")) == "Permission denied"


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"state")
    user = os.geteuid()
    assert read_file(tmp_path / "file", 100, owners={user}) == b"state"
    with pytest.raises(OSError, match=f"it belongs to another user, {user}"):
        read_file(tmp_path / "file", 100, owners={user + 1})
