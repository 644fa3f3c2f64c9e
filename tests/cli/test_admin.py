"""``etherws passwd``: what it reads, prints and refuses."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from etherws.access.credential_files import Passwords, Tokens
from tests.lab.hosts import until
from tests.lab.passwords import hashed, write


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "users"


def passwd(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run `etherws passwd` with standard input that is no terminal."""
    return subprocess.run(
        [sys.executable, "-m", "etherws", "passwd", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize("line", ["Grüße\n", "Grüße", "Grüße\r\n", "Grüße\nmore\n"])
def test_a_password_from_standard_input(file: Path, line: str) -> None:
    for words in ("alice is added to", "alice has a new password in"):
        done = passwd("--cost", "5", file, "alice", stdin=line.encode())
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode() == f"{words} {file}\n"
    assert Passwords.load(file).check("alice", "Grüße")
    assert file.read_text().startswith("alice:$2y$05$")


def test_a_token_is_alone_on_standard_output(file: Path) -> None:
    done = passwd("--token", file, "alice")
    assert done.returncode == 0
    assert b"shown only now" in done.stderr
    token = done.stdout.decode().removesuffix("\n")
    assert token not in done.stderr.decode()
    assert Tokens.load(file).name_of(token) == "alice"
    done = passwd("--delete", file, "alice")
    assert (done.returncode, done.stdout.decode()) == (0, f"alice is deleted from {file}\n")
    assert file.read_bytes() == b""


def test_a_token_in_a_file_is_for_its_owner_only(file: Path) -> None:
    out = file.with_name("branch1.token")
    done = passwd("--token", "--out", out, file, "alice")
    assert (done.returncode, done.stderr) == (0, b"")
    assert out.stat().st_mode & 0o7777 == 0o600
    token = out.read_text().removesuffix("\n")
    assert Tokens.load(file).name_of(token) == "alice"
    assert done.stdout.decode() == f"alice has a new token in {file}; the token itself is in {out}\n"
    before = file.read_bytes()
    link = file.with_name("link")
    link.symlink_to("nowhere")
    for name in (out, link):
        done = passwd("--token", "--out", name, file, "alice")
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.decode() == f"Error: --out {name} exists already; name a new file\n"
    assert out.read_text() == f"{token}\n"
    assert file.read_bytes() == before
    done = passwd("--out", file.with_name("other"), file, "alice")
    assert done.returncode == 2
    assert b"--out is for a token" in done.stderr


def test_a_file_for_a_token_that_is_not_made_does_not_stay(file: Path) -> None:
    write(file, f"bob:{hashed('x')}\n")
    out = file.with_name("out")
    assert passwd("--token", "--out", out, file, "alice").returncode == 1
    assert not out.exists()


def test_a_token_that_cannot_be_written_leaves_no_entry(file: Path) -> None:
    passwd("--token", file, "bob")
    before = file.read_bytes()
    for redirection, words in (
        (">/dev/full", "cannot write the token to standard output: No space left on device; nothing was changed"),
        (">&-", "there is no standard output for the token; give --out FILE"),
        ("--out /dev/full", "exists already"),
        ("--out none/token", "cannot write --out none/token: No such file or directory"),
    ):
        done = subprocess.run(
            ["sh", "-c", f'exec "$0" -m etherws passwd --token "$1" alice {redirection}', sys.executable, file],
            capture_output=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 1
        assert words in done.stderr.decode()
        assert done.stderr.count(b"\n") == 1
        assert file.read_bytes() == before


@pytest.mark.parametrize(("mask", "warned"), [(0o022, True), (0o077, False)])
def test_a_token_in_a_file_that_others_can_read_is_warned_of(file: Path, mask: int, warned: bool) -> None:
    done = subprocess.run(
        ["sh", "-c", f'umask {mask:o}; exec "$0" -m etherws passwd --token "$1" alice >"$1.out"', sys.executable, file],
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert (b"others can read the file" in done.stderr) == warned


@pytest.mark.parametrize(
    ("arguments", "line", "words"),
    [
        ([], b"\n", "the password is empty"),
        ([], b"", "the password is empty"),
        ([], b"hunter2" * 1000, "the password is longer than 72 bytes"),
        ([], b"hunter2\xff", "the password is not UTF-8"),
        ([], b"hunter2\0", "the password has a NUL"),
        (["--cost", "31"], b"hunter2", "a cost of 31 is out of range"),
        (["--token"], b"", "this is a password file; tokens need a file of their own"),
        (["--delete"], b"", "has no entry for this name"),
    ],
)
def test_what_the_command_refuses(file: Path, arguments: list[str], line: bytes, words: str) -> None:
    write(file, f"bob:{hashed('x')}\n")
    before = file.read_bytes()
    done = passwd(*arguments, file, "alice", stdin=line)
    message = done.stderr.decode()
    assert (done.returncode, done.stdout) == (1, b"")
    assert message.startswith("Error: ")
    assert words in message
    assert message.count("\n") == 1
    assert "hunter2" not in message
    assert file.read_bytes() == before


def test_a_token_is_not_made_and_deleted_at_once(file: Path) -> None:
    assert passwd("--token", "--delete", file, "alice").returncode == 2


def test_a_password_at_a_terminal_is_asked_for_twice_and_not_shown(file: Path) -> None:
    ours, its = pty.openpty()
    try:
        # In a session of its own it cannot ask at the terminal that the tests were started from.
        process = subprocess.Popen(
            [sys.executable, "-m", "etherws", "passwd", "--cost", "4", file, "alice"],
            stdin=its,
            stdout=subprocess.PIPE,
            stderr=its,
            start_new_session=True,
        )
        seen = b""
        for prompt, answer in (
            (b"Password: ", b"hunter2"),
            (b"Again: ", b"hunter3"),
            (b"do not match", b""),
            (b"Password: ", b"hunter2"),
            (b"Again: ", b"hunter2"),
        ):
            while prompt not in seen:
                assert select.select([ours], [], [], 20)[0], seen
                seen += os.read(ours, 4096)
            seen = seen.partition(prompt)[2]
            if answer:
                until(lambda: not termios.tcgetattr(its)[3] & termios.ECHO, "the echo to be off")
                os.write(ours, answer + b"\n")
            assert b"hunter" not in seen
        output, _ = process.communicate(timeout=30)
        while select.select([ours], [], [], 0)[0]:
            seen += os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(its)
    assert process.returncode == 0
    assert output.decode() == f"alice is added to {file}\n"
    assert b"hunter" not in seen
    assert Passwords.load(file).check("alice", "hunter2")
