"""What one image of the process leaves to the next, and which command that is."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from etherws.cli.process import process_image
from etherws.cli.process.process_image import ProcessImage
from etherws.errors import DaemonError
from etherws.kernel.state_file import StateFile
from etherws.kernel.store import HANDOVER


@contextlib.contextmanager
def after(first: ProcessImage, arguments: Sequence[str], *, rehearsal: bool = False) -> Iterator[ProcessImage]:
    """The image after this one, as if this process were it."""
    file, environ = first.state(background=True, rehearsal=rehearsal), dict[str, str]()
    first.store.tell(environ, {"image": [os.dup(file.fd)]})
    file.close()
    yield ProcessImage(arguments, environ)
    assert environ == {}


def program(path: Path) -> Path:
    """A program of this name."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *command: str) -> ProcessImage:
    """The image of a process that was started so, in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "orig_argv", [*command, "client"])
    return ProcessImage(["client"], {process_image.NEXT_VARIABLE: str(tmp_path / "links" / "next")})


def test_the_first_image_is_what_the_command_line_says() -> None:
    first = ProcessImage(["client", "ws://a/"], {})
    assert (first.before, first.rehearsing, first.background) == ("", False, False)
    assert first.arguments == first.visible == ["client", "ws://a/"]
    assert first.take_pid_file() is None
    assert first.typed("alice") is None


def test_secrets_come_by_the_state_and_not_by_the_command_line() -> None:
    first = ProcessImage(["client", "ws://alice:secret@a/"], {})
    first.visible = ["client", "ws://alice:xxx@a/"]
    first.note_typed("bob", "typed")
    with after(first, first.visible) as second:
        assert second.arguments == first.arguments
        assert second.background
        assert second.before
        assert (second.typed("alice"), second.typed("bob"), second.typed("bob")) == (None, "typed", None)
        second.visible = first.visible
        # And by that one to the next.
        with after(second, second.visible) as third:
            assert (third.arguments, third.typed("bob")) == (first.arguments, "typed")
    # A program between has made other arguments of it.
    with after(first, ["client", "ws://b/"]) as second:
        assert second.arguments == ["client", "ws://b/"]


def test_a_rehearsal_is_known_by_its_argument_or_by_the_state() -> None:
    first = ProcessImage(["client", "ws://a/"], {})
    with after(first, ["client", process_image.REHEARSAL, "ws://a/"], rehearsal=True) as child:
        assert child.rehearsing
        assert child.arguments == first.arguments
    with after(first, ["client"], rehearsal=True) as child:
        assert child.rehearsing
    assert ProcessImage(["client", process_image.REHEARSAL], {}).rehearsing


@pytest.mark.parametrize("content", [None, [], {"arguments": None}])
def test_a_state_that_tells_nothing_is_none(content: object) -> None:
    file = StateFile()
    if isinstance(content, dict):
        file.write(content)
    found = ProcessImage(["client"], {HANDOVER: f"{file.fd}:image"})
    assert (found.arguments, found.before) == (["client"], "")
    read, write = os.pipe()
    os.close(write)
    assert ProcessImage(["client"], {HANDOVER: f"{read}:image"}).arguments == ["client"]


def test_the_next_command_is_the_one_that_was_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert started(monkeypatch, tmp_path, "python3", "-m", "etherws").next_command() == [
        sys.executable,
        "-m",
        "etherws",
    ]
    script = tmp_path / "bin" / "etherws"
    found = started(monkeypatch, tmp_path, "python3", "bin/etherws")
    # As long as it is not there, another one is looked for.
    monkeypatch.setenv("PATH", str(tmp_path / "other"))
    with pytest.raises(DaemonError, match=r"does not exist any more, nor is there etherws in PATH; link .*/next to"):
        found.next_command()
    other = program(tmp_path / "other" / "etherws")
    assert found.next_command() == [str(other)]
    program(script)
    assert found.next_command() == [str(script)]
    script.chmod(0o644)
    assert found.next_command() == [sys.executable, "bin/etherws"]


def test_the_next_command_is_the_one_that_the_link_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = started(monkeypatch, tmp_path, "python3", "-m", "etherws")
    target = program(tmp_path / "new")
    link = tmp_path / "links" / "next"
    link.parent.mkdir(mode=0o755)
    link.symlink_to("../new")
    assert os.path.samefile(found.next_command()[0], target)
    link.parent.chmod(0o777)
    with pytest.raises(DaemonError, match="other users may change it; give it and its folder to root"):
        found.next_command()
    link.parent.chmod(0o755)
    target.chmod(0o644)
    with pytest.raises(DaemonError, match=r"leads to .*, which is no program; correct it, or remove it"):
        found.next_command()
    link.unlink()
    link.write_text("/bin/true")
    with pytest.raises(DaemonError, match=r"cannot follow the link .*: Invalid argument; make it by ln -sfn"):
        found.next_command()
