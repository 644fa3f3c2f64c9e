"""Values made from files: when they are made again, and what happens if they cannot be."""

from __future__ import annotations

import errno
import os
import ssl
from pathlib import Path

import pytest

from etherws.errors import CredentialsError
from etherws.reloadable import AGAIN, Reloadable


class Counted:
    """The text of a file, and how often it was read."""

    def __init__(self, path: Path, *others: str | None) -> None:
        self.times = 0
        self.now = 0.0
        #: Why it cannot be read, though it is there.
        self.error: Exception | None = None
        self._path = path
        self.value = Reloadable(self._read, [str(path), *others], lambda: self.now)

    def _read(self) -> str:
        self.times += 1
        try:
            if self.error:
                raise self.error
            return self._path.read_text()
        except ValueError as exc:
            raise CredentialsError(f"wrong: {exc}") from exc
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


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), PermissionError()])
def test_a_file_that_could_not_be_read_is_tried_again_though_it_looks_unchanged(
    path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    counted = Counted(path)
    counted.error = error
    path.write_text("two")
    assert [counted.value.get() for _ in range(3)] == ["one"] * 3
    assert counted.times == 2
    counted.now += AGAIN
    assert [counted.value.get() for _ in range(3)] == ["one"] * 3
    assert counted.times == 3
    # As many attempts as it takes, and one line.
    assert caplog.messages == ["cannot read file; what was read before stays in use"]
    counted.error = None
    counted.now += AGAIN
    assert counted.value.get() == "two"
    counted.now += AGAIN
    assert (counted.value.get(), counted.times) == ("two", 4)


@pytest.mark.parametrize("error", [ValueError("line 3"), ssl.SSLError(1, "no start line")])
def test_a_mistake_in_a_file_is_not_found_out_again_and_again(
    path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    counted = Counted(path)
    counted.error = error
    path.write_text("two")
    counted.value.get()
    counted.now += AGAIN
    counted.value.get()
    assert counted.times == 2
    # Who has not mended it is told so.
    path.write_text("three")
    counted.value.get()
    assert caplog.messages[0] == caplog.messages[1]
    assert len(caplog.messages) == 2


def test_a_file_with_other_rights_is_read_again(path: Path) -> None:
    counted = Counted(path)
    path.chmod(path.stat().st_mode ^ 0o040)
    assert (counted.value.get(), counted.times) == ("one", 2)


def test_a_file_that_goes_while_it_is_read_changes_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # As OpenSSL says it.
    errors: list[Exception] = []

    def make() -> str:
        if errors:
            raise errors[0]
        return path.read_text()

    value = Reloadable(make, [str(path)])
    errors.append(FileNotFoundError(errno.ENOENT, "No such file or directory"))
    path.write_text("two")
    assert value.get() == "one"
    assert caplog.messages == ["[Errno 2] No such file or directory; what was read before stays in use"]


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
