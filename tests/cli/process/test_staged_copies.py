"""Copies of root's files, for another user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from etherws import file_names
from etherws.cli.process import staged_copies
from etherws.cli.process.staged_copies import StagedCopies
from etherws.file_names import copy_of, to_read
from etherws.small_files import read_file

#: Who reads the copies: nobody's numbers on this machine.
USER, GROUP = 7777, 7778


@pytest.fixture
def folder(tmp_path: Path, network: None) -> Iterator[str]:
    """Where the copies are, in use."""
    path = str(tmp_path / "copies")
    file_names.use_copies(path)
    yield path
    file_names.use_copies(None)


def test_a_copy_is_for_the_group_alone_and_follows_the_file(folder: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("one")
    made = StagedCopies(folder, [str(file)], USER, GROUP)
    assert made.update() == []
    found = os.stat(to_read(str(file)))
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (os.geteuid(), GROUP, 0o640)
    assert os.stat(folder).st_mode & 0o7777 == 0o750
    assert read_file(str(file), 10) == b"one"
    file.write_text("three")
    assert read_file(str(file), 10) == b"one"
    assert made.update() == []
    assert read_file(str(file), 10) == b"three"
    inode = os.stat(to_read(str(file))).st_ino
    made.update()
    assert os.stat(to_read(str(file))).st_ino == inode


def test_links_are_followed_as_certbot_makes_them(folder: str, tmp_path: Path) -> None:
    for name in ("archive/lan", "live/lan"):
        (tmp_path / name).mkdir(parents=True)
    link = tmp_path / "live/lan/cert.pem"
    for number in (1, 2):
        (tmp_path / f"archive/lan/cert{number}.pem").write_text(str(number))
    link.symlink_to("../../archive/lan/cert1.pem")
    made = StagedCopies(folder, [str(link)], USER, GROUP)
    made.update()
    assert read_file(str(link), 10) == b"1"
    (tmp_path / "new").symlink_to("../../archive/lan/cert2.pem")
    (tmp_path / "new").rename(link)
    made.update()
    assert read_file(str(link), 10) == b"2"


def test_what_is_gone_is_gone_and_said_once(folder: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    made = StagedCopies(folder, [str(file)], USER, GROUP)
    assert made.update() == [f"cannot read {file}: No such file or directory"]
    assert made.update() == []
    with pytest.raises(FileNotFoundError):
        read_file(str(file), 10)
    file.write_text("there")
    made.update()
    assert read_file(str(file), 10) == b"there"
    file.unlink()
    assert len(made.update()) == 1
    with pytest.raises(FileNotFoundError):
        read_file(str(file), 10)


def test_what_is_no_file_is_not_read(folder: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    made = StagedCopies(folder, [str(tmp_path / "fifo")], USER, GROUP)
    assert made.update() == [f"cannot read {tmp_path / 'fifo'}: Invalid argument"]
    with pytest.raises(OSError, match="it is not a regular file"):
        read_file(str(tmp_path / "fifo"), 10)


def test_a_long_file_is_copied_up_to_a_limit_that_its_reader_sees(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "long"
    file.write_bytes(bytes(10 << 20))
    made = StagedCopies(folder, [str(file)], USER, GROUP)
    made.update()
    assert os.path.getsize(to_read(str(file))) == 10 << 20
    monkeypatch.setattr(staged_copies, "SIZE_MAX", 1 << 20)
    file.write_bytes(bytes(9 << 20))
    made.update()
    assert 1 << 20 < os.path.getsize(to_read(str(file))) <= 2 << 20


def test_a_directory_is_copied_with_its_files(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "certs"
    (store / "sub").mkdir(parents=True)
    (store / "a.pem").write_text("a")
    (store / "0123abcd.0").symlink_to("a.pem")
    made = StagedCopies(folder, [str(store)], USER, GROUP)
    assert made.update() == []
    assert sorted(os.listdir(to_read(str(store)))) == ["0123abcd.0", "a.pem"]
    before = os.stat(to_read(str(store))).st_mtime_ns
    (store / "a.pem").write_text("new")
    (store / "0123abcd.0").unlink()
    made.update()
    assert os.listdir(to_read(str(store))) == ["a.pem"]
    assert Path(to_read(str(store)), "a.pem").read_text() == "new"
    assert os.stat(to_read(str(store))).st_mtime_ns != before
    monkeypatch.setattr(staged_copies, "FILES_MAX", 1)
    (store / "b.pem").write_text("b")
    assert made.update() == [f"cannot read {store}: Argument list too long"]
    # A file takes its place, and gives it back.
    monkeypatch.undo()
    (store / "b.pem").unlink()
    store.rename(tmp_path / "away")
    store.write_text("file")
    made.update()
    assert read_file(str(store), 10) == b"file"
    store.unlink()
    (tmp_path / "away").rename(store)
    made.update()
    assert os.listdir(to_read(str(store))) == ["a.pem"]


@pytest.mark.parametrize("who", ["owner", "group", "all"])
def test_who_reads_the_copies_does_not_choose_what_is_copied(folder: str, tmp_path: Path, who: str) -> None:
    """A user who may write to a folder on the way could put a link there to a file that only root may read."""
    place = tmp_path / "place"
    place.mkdir(mode=0o755)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    if who == "owner":
        os.chown(place, USER, -1)
    elif who == "group":
        os.chown(place, -1, GROUP)
        place.chmod(0o775)
    else:
        place.chmod(0o777)
    (place / "file").symlink_to(secret)
    (tmp_path / "link").symlink_to(place / "file")
    for name in (place / "file", tmp_path / "link", place / ".." / "place" / "file"):
        made = StagedCopies(folder, [str(name)], USER, GROUP)
        assert made.update() == [f"{name} is in a folder that the user of etherws may change: etherws reads it itself"]
        assert os.listdir(folder) == []
    # With the sticky bit only its owner may replace a file.
    os.chown(place, 0, 0)
    place.chmod(0o1777)
    made = StagedCopies(folder, [str(place / "file")], USER, GROUP)
    assert made.update() == []
    assert read_file(str(place / "file"), 10) == b"secret"
    os.chown(place / "file", USER, -1, follow_symlinks=False)
    assert len(made.update()) == 1


def test_links_in_a_circle_end(folder: str, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    made = StagedCopies(folder, [str(tmp_path / "one")], USER, GROUP)
    assert made.update() == [f"cannot read {tmp_path / 'one'}: Too many levels of symbolic links"]


def test_a_folder_that_somebody_else_has_made_is_refused(folder: str, tmp_path: Path) -> None:
    os.mkdir(folder)
    os.chown(folder, USER, -1)
    with pytest.raises(OSError, match="not a folder of root's"):
        StagedCopies(folder, [], USER, GROUP)
    os.rmdir(folder)
    os.symlink(tmp_path, folder)
    with pytest.raises(OSError, match="not a folder of root's"):
        StagedCopies(folder, [], USER, GROUP)


def test_they_go_when_they_are_not_needed(folder: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    StagedCopies(folder, [str(tmp_path / "one"), str(tmp_path / "two")], USER, GROUP).update()
    made = StagedCopies(folder, [str(tmp_path / "two")], USER, GROUP)
    made.remove_others()
    assert os.listdir(folder) == [os.path.basename(copy_of(str(tmp_path / "two"), folder))]
    made.remove()
    assert not os.path.exists(folder)
    assert to_read(str(tmp_path / "two")) == str(tmp_path / "two")


def test_a_full_disk_is_said_and_tried_again(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("one")
    made = StagedCopies(folder, [str(file)], USER, GROUP)
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert made.update() == [f"cannot copy {file} for etherws: No space left on device"]
    monkeypatch.undo()
    assert made.update() == []
    assert read_file(str(file), 10) == b"one"
