"""The rehearsal of a new image: what it says of programs that cannot go on, and that it waits for none for ever."""

from __future__ import annotations

import os
from pathlib import Path

import gevent
import pytest

from etherws import __version__
from etherws.cli.process import rehearsal
from etherws.errors import DaemonError
from tests.lab.hosts import until

#: What a program does, and what is said of it.
FAILURES = {
    "echo 'Traceback'; echo 'ValueError: \x1b' >&2; exit 1": "ends with status 1: ValueError: ?",
    "echo 'Error: no option --drop'; echo behind; exit 2": "ends with status 2: no option --drop",
    "echo 'etherws 1.0 is up'": "ends without a word of etherws; is it the right program?: etherws 1.0 is up",
    "exit 0": "ends without a word of etherws; is it the right program?",
    "exit 1": "ends with status 1",
    "kill -9 $$": "is ended by signal 9",
    f"echo '{rehearsal.ANSWER} 1.0'; exit 3": f"ends with status 3: {rehearsal.ANSWER} 1.0",
    "yes; exit 7": "ends with status 7: y",
}


def rehearse(folder: Path, text: str, *arguments: str, descriptors: tuple[int, ...] = ()) -> str:
    """Rehearse a program of this text."""
    program = folder / "program"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return rehearsal.rehearse([str(program), *arguments], str(folder), os.environ, descriptors)


@pytest.mark.parametrize("text", FAILURES)
def test_the_error_has_the_programs_own_words(tmp_path: Path, text: str) -> None:
    with pytest.raises(DaemonError) as caught:
        rehearse(tmp_path, text)
    assert str(caught.value) == f"{tmp_path}/program {FAILURES[text]}"


def test_the_answer_counts_whatever_comes_with_it(tmp_path: Path) -> None:
    said = f'echo before; echo "{rehearsal.ANSWER} $1"; echo "in $PWD" >&2; test -e "/dev/fd/$2"'
    descriptor = os.memfd_create("inherited")
    assert rehearse(tmp_path, said, "7.1", str(descriptor), descriptors=(descriptor,)) == "7.1"
    os.close(descriptor)
    assert rehearsal.answer().endswith(__version__)


def test_a_program_that_hangs_is_ended_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "TIMEOUT", 0.2)
    others = list[int]()

    def go_on() -> None:
        for number in range(1000):
            others.append(number)
            gevent.sleep(0.01)

    ticker = gevent.spawn(go_on)
    with pytest.raises(DaemonError, match=r"does not come to an end within 0\.2 s: waiting"):
        rehearse(tmp_path, "echo waiting; sleep 1000 & echo $! > child; wait")
    ticker.kill()
    # Sessions go on meanwhile.
    assert len(others) > 5
    child = int((tmp_path / "child").read_text())
    until(lambda: not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text(), "its end")


def test_what_cannot_be_started_is_no_new_image(tmp_path: Path) -> None:
    with pytest.raises(DaemonError, match="cannot start /nowhere: No such file or directory"):
        rehearsal.rehearse(["/nowhere"], str(tmp_path), os.environ, ())
