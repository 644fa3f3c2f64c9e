"""Values made from files: when they are made again, and what happens if they cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from etherws.errors import CredentialsError
from etherws.reloadable import Reloadable


class Counted:
    """The text of a file, and how often it was read."""

    def __init__(self, path: Path, *others: str | None) -> None:
        self.times = 0
        self._path = path
        self.value = Reloadable(self._read, [str(path), *others])

    def _read(self) -> str:
        self.times += 1
        try:
            return self._path.read_text()
        except OSError as exc:
            raise CredentialsError(f"cannot read {self._path.name}") from exc


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file."""
    path = tmp_path / "file"
    path.write_text("one")
    return path


def test_a_value_is_made_once_while_its_file_stays_the_same(path: Path) -> None:
    counted = Counted(path, None)
    assert [counted.value.get() for _ in range(3)] == ["one"] * 3
    assert counted.times == 1


def test_a_file_that_was_written_or_replaced_is_read_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    counted = Counted(path)
    path.write_text("other")
    assert counted.value.get() == "other"
    # The same size and time: the inode tells.
    new = path.with_name("new")
    new.write_text("third")
    found = path.stat()
    os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))
    new.replace(path)
    assert counted.value.get() == "third"
    assert counted.times == 3
    assert caplog.messages == [f"read again: {path}"] * 2


def test_each_of_several_files_counts(path: Path) -> None:
    other = path.with_name("other")
    counted = Counted(path, str(other))
    other.write_text("was not there before")
    assert counted.value.get() == "one"
    assert counted.times == 2


def test_a_file_that_cannot_be_used_leaves_the_old_value_and_is_logged_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counted = Counted(path)
    path.unlink()
    assert [counted.value.get() for _ in range(3)] == ["one"] * 3
    assert caplog.messages == ["cannot read file; what was read before stays in use"]
    path.write_text("two")
    assert counted.value.get() == "two"


def test_the_first_time_an_error_is_raised(path: Path) -> None:
    path.unlink()
    with pytest.raises(CredentialsError, match="cannot read file"):
        Counted(path)


def test_a_reload_reads_what_looks_unchanged(path: Path) -> None:
    counted = Counted(path)
    counted.value.reload()
    assert (counted.value.get(), counted.times) == ("one", 2)


def test_a_value_without_files_is_not_read_again(caplog: pytest.LogCaptureFixture) -> None:
    made: list[int] = []
    value = Reloadable(lambda: made.append(1), [None])
    with caplog.at_level("INFO"):
        value.reload()
        value.get()
    assert made == [1]
    assert caplog.messages == []
