"""The folder of what stays: what is in it may be damaged, another's, or not there, and costs a line."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from etherws.kernel.state_folder import SIZE_MAX, StateFolder, default

WHAT = {"address": "fe:00:00:00:00:01"}


def test_what_is_kept_is_found_again_and_readable_for_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "etherws")
    folder = StateFolder(str(tmp_path / "new" / "folder"))
    assert folder.read("a.json") is None
    folder.write("a.json", WHAT)
    folder.write("a.json", {**WHAT, "more": 1})
    assert StateFolder(folder.path).read("a.json") == {"version": 1, **WHAT, "more": 1}
    assert os.listdir(folder.path) == ["a.json"]
    assert os.stat(f"{folder.path}/a.json").st_mode & 0o777 == 0o644
    assert not caplog.records


def test_no_folder_keeps_nothing(caplog: pytest.LogCaptureFixture) -> None:
    folder = StateFolder("")
    folder.write("a.json", WHAT)
    assert folder.read("a.json") is None
    assert not caplog.records


@pytest.mark.parametrize(
    "data", [b"", b'{"version": 1, "addr', b"\xff", b"[]", b"7", b"{}", b'{"version": "1"}', b"[" * SIZE_MAX]
)
def test_what_is_damaged_is_one_line_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    (tmp_path / "a.json").write_bytes(data)
    folder = StateFolder(str(tmp_path))
    assert folder.read("a.json") is None
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/a.json is not used: it is damaged; a new one is made"
    ]
    folder.write("a.json", WHAT)
    assert folder.read("a.json") == {"version": 1, **WHAT}


def test_a_long_file_is_not_read_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(10_000_000)
    assert StateFolder(str(tmp_path)).read("a.json") is None
    assert "is longer than 4096 bytes; remove it" in caplog.text


def test_the_file_of_a_newer_version_is_left_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.json").write_text('{"version": 2}')
    folder = StateFolder(str(tmp_path))
    assert folder.read("a.json") is None
    folder.write("a.json", WHAT)
    assert (tmp_path / "a.json").read_text() == '{"version": 2}'
    assert "a newer version of etherws has made it; it is left as it is" in caplog.text
    assert len(caplog.records) == 1


def test_another_users_file_is_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StateFolder(str(tmp_path))
    folder.write("a.json", WHAT)
    if os.geteuid() == 0:
        os.chown(tmp_path / "a.json", 1234, 0)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4321)
    assert folder.read("a.json") is None
    assert "is not used: it belongs to another user" in caplog.text
    monkeypatch.undo()
    folder.write("a.json", WHAT)
    assert folder.read("a.json") is not None


def test_a_fifo_or_a_folder_is_not_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").mkdir()
    folder = StateFolder(str(tmp_path))
    assert folder.read("a.json") is folder.read("b.json") is None
    assert caplog.text.count("it is not a regular file") == 2
    folder.write("a.json", WHAT)
    assert folder.read("a.json") is not None
    # Nor written.
    folder.write("b.json", WHAT)
    assert (
        "b.json cannot be kept: Is a directory; what is in it is derived again at each start (see --state-dir)"
        in caplog.text
    )


def test_a_folder_that_cannot_be_written_to_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning for who has named it."""
    caplog.set_level(logging.INFO, "etherws")
    (tmp_path / "file").touch()
    StateFolder(str(tmp_path / "file" / "folder")).write("a.json", WHAT)
    StateFolder(None, {"STATE_DIRECTORY": str(tmp_path / "file" / "folder")}).write("a.json", WHAT)
    assert [(record.levelname, "cannot be kept: Not a directory" in record.getMessage()) for record in caplog.records]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert all("cannot be kept: Not a directory" in record.getMessage() for record in caplog.records)


def test_a_file_that_somebody_else_puts_there_is_not_written_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    unlink = os.unlink

    def replace_by_a_link(path: str) -> None:
        # As if it were put there just after that.
        with pytest.raises(FileNotFoundError):
            unlink(path)
        os.symlink(victim, path)

    monkeypatch.setattr(os, "unlink", replace_by_a_link)
    StateFolder(str(tmp_path)).write("a.json", WHAT)
    assert victim.read_text() == ""
    assert "a.json cannot be kept: File exists" in caplog.text


@pytest.mark.parametrize(
    ("environ", "user", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/private/etherws"}, 0, "/var/lib/private/etherws"),
        ({"STATE_DIRECTORY": "/a:/b", "HOME": "/home/anna"}, 1000, "/a"),
        ({"STATE_DIRECTORY": "relative"}, 0, "/var/lib/etherws"),
        ({"HOME": "/root"}, 0, "/var/lib/etherws"),
        ({"XDG_STATE_HOME": "/state", "HOME": "/home/anna"}, 1000, "/state/etherws"),
        ({"XDG_STATE_HOME": "state", "HOME": "/home/anna"}, 1000, "/home/anna/.local/state/etherws"),
        ({"HOME": "/home/anna"}, 1000, "/home/anna/.local/state/etherws"),
        ({}, 1000, ""),
    ],
)
def test_the_usual_folder(environ: dict[str, str], user: int, folder: str) -> None:
    assert default(environ, user) == folder
