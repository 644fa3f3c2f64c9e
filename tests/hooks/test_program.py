"""Real programs: what they may do, what the log gets of them, and that each ends."""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import gevent
import pytest

from etherws.errors import SettingsError
from etherws.hooks import program
from etherws.hooks.program import Rights, check, run
from etherws.kernel.privileges import CAP_NET_ADMIN
from tests.lab.hosts import PATIENCE, until

Script = Callable[[str], str]


@pytest.fixture(autouse=True)
def limits(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(program, "GRACE", 0.1)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    def make(text: str) -> str:
        path = tmp_path / "hook"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return make


def ran(path: str, rights: Rights = Rights(), seconds: float = PATIENCE) -> None:  # noqa: B008
    end = monotonic() + seconds
    with gevent.Timeout(2 * PATIENCE):
        run(path, "--up for x", {b"ETHERWS_IDENTITY": b"$(false)"}, rights, lambda: end)


def test_a_program_has_its_environment_and_its_output_is_logged(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    ran(script('echo "it is $ETHERWS_IDENTITY in $PWD"; printf "a\\033b" >&2; env | wc -l; exit 3'))
    assert "--up for x: it is $(false) in /" in caplog.text
    assert "--up for x: a?b" in caplog.text
    assert "hook ended with status 3" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
@pytest.mark.parametrize(
    ("rights", "user", "capabilities"),
    [
        (Rights(), 0, 0),
        (Rights(capabilities=(CAP_NET_ADMIN,)), 0, 1 << CAP_NET_ADMIN),
        (Rights((65534, 65534)), 65534, 0),
        (Rights((65534, 65534), (CAP_NET_ADMIN,)), 65534, 1 << CAP_NET_ADMIN),
    ],
)
def test_a_program_has_no_more_rights_than_configured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rights: Rights, user: int, capabilities: int
) -> None:
    path = Path("/tmp") / f"hook-{os.getpid()}-{user}"
    path.write_text("#!/bin/sh\nid -u\nid -G\ngrep ^Cap /proc/self/status\n")
    path.chmod(0o755)
    try:
        ran(str(path), rights)
    finally:
        path.unlink()
    lines = [record.getMessage().removeprefix("--up for x: ") for record in caplog.records]
    assert lines[0] == str(user)
    found = dict(line.split(":?") for line in lines[2:])
    assert {int(found[name], 16) for name in ("CapPrm", "CapEff")} == {capabilities}


def test_a_program_that_hangs_is_ended_with_all_that_it_started(
    script: Script, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ran(script(f"trap '' TERM; sleep 1000 & echo $! > {tmp_path}/child; wait; sleep 1000"), seconds=0.5)
    assert "did not end in time, and was ended with all that it had started" in caplog.text
    child = (tmp_path / "child").read_text().strip()

    def gone() -> bool:
        try:
            return "Z" in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True

    until(gone, "the end of what it had started")


def test_output_without_end_is_cut_and_counted(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    ran(script("yes 0123456789"), seconds=0.5)
    lines = [record.getMessage() for record in caplog.records]
    assert lines.count("--up for x: 0123456789") == program.LINES_MAX
    assert "more lines were left out" in caplog.text
    caplog.clear()
    ran(script("head -c 1000000 /dev/zero"))
    assert max(map(len, (record.getMessage() for record in caplog.records))) <= program.LINE_MAX + 20


def test_a_line_without_end_takes_no_more_time_than_many_lines(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []

    def read(descriptor: int, size: int) -> bytes:
        reads.append(size)
        return os_read(descriptor, size)

    os_read = os.read
    monkeypatch.setattr(os, "read", read)
    ran(script("exec cat /dev/zero"), seconds=0.5)
    # Those of Popen(), too.
    assert len(reads) <= 0.5 / program.PAUSE + 10


def test_one_that_the_kernel_does_not_end_holds_up_nobody(
    script: Script, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that waits for a disk. Nothing brings that about here but a kill that does nothing."""
    killpg, groups = os.killpg, []
    monkeypatch.setattr(os, "killpg", lambda group, _: groups.append(group))
    ran(script("exec sleep 1000"), seconds=0.1)
    assert "did not end in time, and does not end by SIGKILL either: it waits in the kernel" in caplog.text
    killpg(groups[0], signal.SIGKILL)
    with gevent.Timeout(PATIENCE):
        while Path(f"/proc/{groups[0]}").exists():
            gevent.sleep(0.01)


def test_one_that_cannot_be_waited_for_is_ended(
    script: Script, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    ran(script("exec sleep 1000"))
    assert "cannot be waited for: Too many open files, and was ended with all" in caplog.text


def test_what_goes_on_in_the_background_is_left_alone(script: Script, tmp_path: Path) -> None:
    """As a daemon does."""
    ran(script(f"(sleep 0.3; echo late > {tmp_path}/late) & exit 0"))
    until((tmp_path / "late").exists, "its child to go on")


def test_a_program_that_is_gone_or_anybodys_is_said_with_the_mend(
    script: Script, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(script("exit 0"))
    check("--up", str(path))
    for mode, words in ((0o644, "is not a program; chmod"), (0o757, "every user of this machine can change it")):
        path.chmod(mode)
        with pytest.raises(SettingsError, match=words):
            check("--up", str(path))
    with pytest.raises(SettingsError, match="is a folder; name a program in it"):
        check("--up", str(tmp_path))
    with pytest.raises(SettingsError, match="is not a program"):
        check("--up", "/dev/null")
    ran(str(path))
    path.unlink()
    with pytest.raises(SettingsError, match=r"--up .*: No such file or directory; name a program by its whole path"):
        check("--up", str(path))
    ran(str(path))
    assert caplog.text.count("--up for x: cannot run") == 2
    # No program at all: the kernel says so.
    path.write_bytes(b"\x7fELF nothing")
    path.chmod(0o755)
    ran(str(path))
    assert "Exec format error; the first line of a script is #!/bin/sh" in caplog.text
    path.write_text("#!/bin/nothing\n")
    ran(str(path))
    assert "No such file or directory; the program that the first line of the script names" in caplog.text
    tmp_path.chmod(0o777)
    with pytest.raises(SettingsError, match=f"every user of this machine can change it; chmod o-w {tmp_path}$"):
        check("--up", str(path))
