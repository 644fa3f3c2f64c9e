"""Changing files of passwords and tokens: nothing else in the file changes, whatever happens meanwhile."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etherws.access import passwd
from etherws.access.credential_files import Passwords, Tokens
from etherws.access.passwd import add_token, remove, set_password
from etherws.errors import CredentialsError
from tests.lab.passwords import LINES, QUICK, htpasswd, sha, write


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "users"


@pytest.mark.parametrize("password", ["secret", "with space:and colon", "Grüße, 世界", "x" * 72])
def test_htpasswd_takes_what_we_write(file: Path, password: str) -> None:
    assert set_password(file, "alice", password, QUICK)
    assert htpasswd("-v", str(file), "alice", password=password).returncode == 0
    assert htpasswd("-v", str(file), "alice", password=password[1:]).returncode != 0


def test_tokens(file: Path) -> None:
    tokens = [(name, add_token(file, name)) for name in ("alice", "bob", "alice")]
    loaded = Tokens.load(file)
    assert not loaded.warnings
    for name, token in tokens:
        assert len(base64.urlsafe_b64decode(token + "=")) == 32
        assert loaded.name_of(token) == name
        assert token not in file.read_text()
        for wrong in (token[:-1], token + "x", token.swapcase(), token + "\0", ""):
            assert loaded.name_of(wrong) is None
    for wrong in ("x" * 10_000, "\ud800", "é"):
        assert loaded.name_of(wrong) is None
    assert remove(file, "alice")
    assert [Tokens.load(file).name_of(token) for _, token in tokens] == [None, "bob", None]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(LINES, max_size=5).map(b"\n".join))
def test_whatever_is_in_a_file_a_change_keeps_the_other_lines(tmp_path: Path, content: bytes) -> None:
    file = write(tmp_path / "fuzz", content)
    try:
        set_password(file, "carol", "secret", QUICK)
    except CredentialsError:
        assert file.read_bytes() == content
    else:
        kept = content if content.endswith(b"\n") or not content else content + b"\n"
        assert file.read_bytes().startswith(kept)


def test_a_renewed_token_ends_the_others_of_its_name(file: Path) -> None:
    old, other = passwd.add_token(file, "robot"), passwd.add_token(file, "other")
    passwd.add_token(file, "robot")
    new = passwd.add_token(file, "robot", renew=True)
    tokens = Tokens.load(file)
    assert (len(tokens), tokens.has("robot"), tokens.has("nobody")) == (2, True, False)
    assert [tokens.name_of(token) for token in (old, other, new)] == [None, "other", "robot"]


def test_changing_keeps_the_rest(file: Path) -> None:
    others = "# people\n\ncarol:$apr1$old$hash\r\n"
    write(file, f"{others}alice:{sha('old')}\n# end\nalice:twice")
    assert not set_password(file, "alice", "new", QUICK)
    lines = file.read_bytes().decode().split("\n")
    assert "\n".join(lines[:3]) + "\n" == others
    assert lines[3].startswith("alice:$2y$04$")
    assert lines[4:] == ["# end", ""]
    assert set_password(file, "dave", "x", QUICK)
    assert remove(file, "carol")
    passwords = Passwords.load(file)
    assert passwords.check("alice", "new")
    assert passwords.check("dave", "x")
    before = file.stat()
    assert not remove(file, "carol")
    assert file.stat().st_ino == before.st_ino


@pytest.mark.parametrize(
    ("name", "password", "cost", "words"),
    [
        ("", "x", 4, "the name is empty"),
        ("a:b", "x", 4, "the name has a colon"),
        ("#a", "x", 4, "the name has a colon or begins with #"),
        ("a\nb", "x", 4, "the name has characters"),
        ("\udcff", "x", 4, "the name has characters"),
        ("x" * 129, "x", 4, "the name is longer"),
        ("a", "", 4, "the password is empty"),
        ("a", "x" * 73, 4, "the password is longer than 72 bytes"),
        ("a", "é" * 37, 4, "the password is longer than 72 bytes"),
        ("a", "x\0", 4, "the password has a NUL"),
        ("a", "\udcff", 4, "the password is not UTF-8"),
        ("a", "x", 3, "a cost of 3 is out of range"),
        ("a", "x", 16, "a cost of 16 is out of range"),
    ],
)
def test_entries_that_are_not_made(file: Path, name: str, password: str, cost: int, words: str) -> None:
    with pytest.raises(CredentialsError, match=words):
        set_password(file, name, password, cost)
    if password == "x" and cost == 4:
        with pytest.raises(CredentialsError, match=words):
            add_token(file, name)
    assert not file.exists()


def test_kinds_are_not_mixed(file: Path) -> None:
    set_password(file, "alice", "x", QUICK)
    before = file.read_bytes()
    with pytest.raises(CredentialsError, match="this is a password file; tokens need a file of their own"):
        add_token(file, "alice")
    assert file.read_bytes() == before
    file.unlink()
    add_token(file, "alice")
    with pytest.raises(CredentialsError, match="this is a token file; passwords need a file of their own"):
        set_password(file, "bob", "x", QUICK)


def test_owner_mode_and_link_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    file, link = tmp_path / "real/users", tmp_path / "link"
    link.symlink_to("real/users")
    # With a link to a missing file, the target is made.
    set_password(link, "alice", "x", QUICK)
    assert file.stat().st_mode & 0o7777 == 0o600
    file.chmod(0o640)
    owner = (os.getuid(), os.getgid())
    if owner == (0, 0):
        owner = (65534, 65533)
        os.chown(file, *owner)
    set_password(link, "bob", "x", QUICK)
    assert link.is_symlink()
    assert file.stat().st_mode & 0o7777 == 0o640
    assert (file.stat().st_uid, file.stat().st_gid) == owner
    assert os.listdir(tmp_path / "real") == ["users"]


def test_files_that_cannot_be_changed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    for name, words in (
        ("none/users", "cannot change: No such file.*; check the path"),
        ("file/users", "cannot change: Not a directory"),
        ("fifo", "not a regular file"),
        (".", "not a regular file"),
    ):
        with pytest.raises(CredentialsError, match=words):
            set_password(tmp_path / name, "alice", "x", QUICK)
    with pytest.raises(CredentialsError, match="cannot read: No such file"):
        remove(tmp_path / "none", "alice")
    assert sorted(os.listdir(tmp_path)) == ["fifo", "file"]


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own that runs the code."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


#: Sets alice's password in the file of the first argument.
SET_PASSWORD = (
    "import sys; from etherws.access.passwd import set_password; set_password(sys.argv[1], 'alice', 'new', 4)"
)


@contextlib.contextmanager
def open_for_reading(path: Path) -> Iterator[int]:
    """A descriptor of a file or folder, as everybody who may read it can get."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("accident", "status", "left"),
    [
        ("sys.addaudithook(lambda event, _: event == 'os.rename' and os.kill(os.getpid(), 9))", -9, 1),
        ("sys.addaudithook(lambda event, _: event == 'os.rename' and os.link('/', '/'))", 3, 0),
        ("resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))", 3, 0),
    ],
    ids=["killed", "no rename", "disk full"],
)
def test_an_accident_leaves_the_old_file(file: Path, accident: str, status: int, left: int) -> None:
    set_password(file, "alice", "old", QUICK)
    before = file.read_bytes()
    process = python(
        "import os, resource, sys\n"
        "from etherws.access.passwd import CredentialsError, set_password\n"
        f"{accident}\n"
        "try: set_password(sys.argv[1], 'alice', 'new', 4)\n"
        "except CredentialsError as exc: print(exc); sys.exit(3)",
        file,
    )
    output, errors = process.communicate(timeout=30)
    assert process.returncode == status, errors
    assert ("cannot change" in output) == (status == 3)
    assert file.read_bytes() == before
    fresh = [path for path in file.parent.iterdir() if path != file]
    assert len(fresh) == left
    assert all(path.stat().st_mode & 0o077 == 0 for path in fresh)
    # A process that died holds no lock.
    assert not set_password(file, "alice", "new", QUICK)
    assert Passwords.load(file).check("alice", "new")


def test_a_lock_that_anybody_can_have_stops_nobody(file: Path) -> None:
    set_password(file, "alice", "x", QUICK)
    file.chmod(0o644)
    with contextlib.ExitStack() as stack:
        for path in (file.parent, file):
            fcntl.flock(stack.enter_context(open_for_reading(path)), fcntl.LOCK_EX)
        process = python(SET_PASSWORD, file)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, output + errors
    assert Passwords.load(file).check("alice", "new")


def test_another_writer_is_waited_for_but_not_for_ever(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(passwd, "sleep", waits.append)
    monkeypatch.setattr(passwd, "monotonic", lambda: sum(waits))
    set_password(file, "alice", "x", QUICK)
    before = file.read_bytes()
    other = file.with_name(".etherws-users")
    other.touch(0o600)
    with open_for_reading(other) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CredentialsError, match="another 'etherws passwd' changes it; try again when"):
            set_password(file, "alice", "new", QUICK)
        assert 10 <= sum(waits) < 11
        assert file.read_bytes() == before
        # It has ended, and its file became the target.
        monkeypatch.setattr(passwd, "sleep", lambda _: other.replace(file.with_name("elsewhere")))
        set_password(file, "alice", "new", QUICK)
    assert Passwords.load(file).check("alice", "new")


def test_what_lies_in_the_way_is_not_touched(file: Path) -> None:
    other = file.with_name(".etherws-users")
    victim = write(file.with_name("victim"), "precious")
    other.symlink_to(victim)
    with pytest.raises(CredentialsError, match="cannot change: Too many levels of symbolic links"):
        set_password(file, "alice", "x", QUICK)
    other.unlink()
    os.mkfifo(other)
    with pytest.raises(CredentialsError, match="is in the way, and not this user's file; remove it"):
        set_password(file, "alice", "x", QUICK)
    other.unlink()
    if os.geteuid() == 0:
        other.touch()
        os.chown(other, 65534, 65534)
        with pytest.raises(CredentialsError, match=r"is in the way|Permission denied"):
            set_password(file, "alice", "x", QUICK)
    assert victim.read_text() == "precious"
    assert not file.exists()


def test_a_token_that_cannot_be_delivered_leaves_no_entry(file: Path) -> None:
    def fails(token: str) -> None:
        raise OSError(28, f"no space for {len(token)} bytes")

    first = add_token(file, "alice")
    before = file.read_bytes()
    with pytest.raises(CredentialsError, match="no space for 43 bytes"):
        add_token(file, "bob", fails)
    assert file.read_bytes() == before
    delivered: list[str] = []
    assert [add_token(file, "bob", delivered.append)] == delivered
    assert Tokens.load(file).name_of(first) == "alice"
    assert os.listdir(file.parent) == ["users"]


def test_writers_at_once_lose_nothing(file: Path) -> None:
    each = 25
    writers = [
        python(
            "import sys; from etherws.access.passwd import set_password\n"
            "print('ready', flush=True); sys.stdin.readline()\n"
            f"for number in range({each}): set_password(sys.argv[1], f'{{sys.argv[2]}}{{number}}', 'x', 4)",
            file,
            name,
        )
        for name in "abc"
    ]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
    names = sorted(line.partition(":")[0] for line in file.read_text().splitlines())
    assert names == sorted(f"{name}{number}" for name in "abc" for number in range(each))
    assert os.listdir(file.parent) == ["users"]


@pytest.mark.parametrize("call", ["fchmod", "fsync", "replace"])
def test_a_failed_step_leaves_the_old_file_and_nothing_else(
    file: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    set_password(file, "alice", "old", QUICK)
    before = file.read_bytes()
    monkeypatch.setattr(os, call, fails)
    with pytest.raises(CredentialsError, match="cannot change: No space left on device; check the path"):
        set_password(file, "alice", "new", QUICK)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["users"]
