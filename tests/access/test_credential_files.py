"""Files of passwords and tokens: what is taken, what is refused by name, and that rewriting loses nothing."""

from __future__ import annotations

import base64
import hashlib
import os
import pty
import select
import shutil
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etherws.access import credential_files
from etherws.access.credential_files import Passwords, Tokens
from etherws.access.passwd import add_token, remove, set_password
from etherws.errors import CredentialsError, SettingsError
from tests.lab.hosts import until

#: bcrypt's least, so that tests are quick.
QUICK = 4


def hashed(password: str, cost: int = QUICK, kind: str = "2y") -> str:
    """What a password file has behind the colon."""
    return f"${kind}" + bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()[3:]


def sha(password: str) -> str:
    """The same, as etherws 1.3 had it."""
    return "{SHA}" + base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that is not there yet."""
    return tmp_path / "users"


def write(file: Path, content: str | bytes) -> Path:
    """Make the file, closed to others."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    file.chmod(0o600)
    return file


def htpasswd(*arguments: str, password: str) -> subprocess.CompletedProcess[str]:
    """Run Apache's own program with the password on its standard input."""
    if not shutil.which("htpasswd"):
        pytest.skip("there is no htpasswd here; install apache2-utils")
    return subprocess.run(
        ["htpasswd", "-i", *arguments], input=password, capture_output=True, text=True, check=False, timeout=30
    )


# Passwords


@pytest.mark.parametrize("password", ["secret", "with space:and colon", "Grüße, 世界", "x" * 72])
@pytest.mark.parametrize("options", [["-B"], ["-B", "-C", "6"], ["-s"]], ids=["bcrypt", "cost 6", "SHA"])
def test_what_htpasswd_writes_is_taken(file: Path, options: list[str], password: str) -> None:
    assert htpasswd("-c", *options, str(file), "alice", password=password).returncode == 0
    file.chmod(0o600)
    passwords = Passwords.load(file)
    assert passwords.check("alice", password)
    assert not passwords.check("alice", password[:-1])
    assert not passwords.check("bob", password)
    assert bool(passwords.warnings) == (options == ["-s"])


@pytest.mark.parametrize("password", ["secret", "with space:and colon", "Grüße, 世界", "x" * 72])
def test_htpasswd_takes_what_we_write(file: Path, password: str) -> None:
    assert set_password(file, "alice", password, QUICK)
    assert htpasswd("-v", str(file), "alice", password=password).returncode == 0
    assert htpasswd("-v", str(file), "alice", password=password[1:]).returncode != 0


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("-m", "$apr1$ (Apache's MD5)"),
        ("-2", "$5$ (SHA-256 crypt)"),
        ("-5", "$6$ (SHA-512 crypt)"),
        ("-d", "crypt (DES)"),
        ("-p", "plain text"),
    ],
)
def test_htpasswds_other_schemes_are_refused_by_name(file: Path, option: str, words: str) -> None:
    done = htpasswd("-c", option, str(file), "alice", password="secret")
    if done.returncode and "illegal option" in done.stderr:
        pytest.skip(f"this htpasswd has no {option}")
    assert done.returncode == 0, done.stderr
    with pytest.raises(CredentialsError) as caught:
        Passwords.load(file)
    assert str(caught.value).startswith(f"{file}:1: {words}")
    assert "etherws passwd" in str(caught.value)


#: Of "secret".
BCRYPT = "$2y$04$AVRZdYtzLihHWszQu/uGGOrxoN0DbXSBk8uf/6cbHCVv/k.mbK2kK"
B64 = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{SSHA}" + B64, "{SSHA}"),
        ("{SSHA512}" + B64, "{SSHA}"),
        ("{SHA256}" + B64, "{SHA256}"),
        ("{SMD5}" + B64, "{SMD5}"),
        ("{MD5}" + B64, "{MD5}"),
        ("{CRYPT}" + B64, "{CRYPT}"),
        ("{PLAIN}" + B64, "{PLAIN}"),
        ("{SHA}" + B64, "malformed {SHA}"),
        ("{SHA}", "malformed {SHA}"),
        ("{SHA}" + "é" * 27 + "=", "malformed {SHA}"),
        ("$1$salt$" + B64, "$1$"),
        ("$3$$" + B64, "$3$"),
        ("$7$" + B64, "$7$"),
        ("$y$j9T$" + B64, "$y$"),
        ("$gy$j9T$" + B64, "$gy$"),
        ("$sha1$24$" + B64, "$sha1$"),
        ("$argon2id$v=19$" + B64, "$argon2"),
        ("$pbkdf2-sha256$" + B64, "$pbkdf2"),
        ("$P$B" + B64, "phpass"),
        ("$H$9" + B64, "phpass"),
        (BCRYPT.replace("2y", "2x"), "$2x$"),
        (BCRYPT[:-1], "malformed bcrypt"),
        (BCRYPT + "x", "malformed bcrypt"),
        (BCRYPT + ":extra", "malformed bcrypt"),
        (BCRYPT.replace("$04$", "$\u0660\u0664$"), "malformed bcrypt"),
        (BCRYPT[:28] + "z" + BCRYPT[29:], "malformed bcrypt"),
        (BCRYPT.replace("$04$", "$03$"), "cost 03"),
        (BCRYPT.replace("$04$", "$16$"), "cost 16"),
        (BCRYPT.replace("$04$", "$31$"), "cost 31"),
        ("", "plain text"),
        ("hunter2", "plain text"),
        ("$ecret", "plain text"),
    ],
)
def test_other_schemes_are_refused_by_name(file: Path, value: str, words: str) -> None:
    write(file, f"# ours\n\nbob:{hashed('x')}\nalice:{value}\n")
    with pytest.raises(CredentialsError) as caught:
        Passwords.load(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:4: ")
    assert words in message
    assert value not in ("hunter2", "$ecret") or value not in message
    assert B64 not in message


@pytest.mark.parametrize("kind", ["2a", "2b", "2y"])
def test_every_name_of_bcrypt_is_taken(file: Path, kind: str) -> None:
    passwords = Passwords.load(write(file, f"alice:{hashed('secret', kind=kind)}"))
    assert passwords.check("alice", "secret")
    assert not passwords.check("alice", "Secret")
    assert not passwords.warnings


@pytest.mark.parametrize(
    "password", ["", "x" * 73, "x" * 10_000, "sec\0ret", "\0", "secret\0", "é" * 37, "\ud800", "SECRET", "secret "]
)
@pytest.mark.parametrize("value", [BCRYPT, sha("secret")], ids=["bcrypt", "SHA"])
def test_wrong_and_unusable_passwords_match_nothing(file: Path, value: str, password: str) -> None:
    assert not Passwords.load(write(file, f"alice:{value}")).check("alice", password)


@pytest.mark.parametrize("real", ["", "x" * 73, "sec\0ret"], ids=["empty", "long", "NUL"])
def test_not_even_an_entry_of_another_program_makes_them_match(file: Path, real: str) -> None:
    # The last is what is hashed in their stead.
    for value in (hashed(real[:72]), sha(real), hashed("-")):
        assert not Passwords.load(write(file, f"alice:{value}")).check("alice", real)


def test_spellings_of_unicode_differ(file: Path) -> None:
    passwords = Passwords.load(write(file, f"é:{hashed('ñ')}\n"))
    assert passwords.check("é", "ñ")
    assert not passwords.check("é", "n\u0303")
    assert not passwords.check("e\u0301", "ñ")


def test_every_check_is_the_same_work(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work: list[int] = []
    real = bcrypt.checkpw

    def counting(password: bytes, known: bytes) -> bool:
        work.append(int(known[4:6]))
        return real(password, known)

    monkeypatch.setattr(bcrypt, "checkpw", counting)
    for lines, costs in (
        ([f"a:{hashed('secret', 5)}"], [5]),
        ([f"a:{hashed('secret', 4)}", f"b:{hashed('secret', 7)}", f"c:{hashed('secret', 5)}"], [4, 5, 7]),
        ([f"a:{sha('secret')}", f"b:{hashed('secret', 6)}"], [6]),
        ([f"a:{sha('secret')}"], [credential_files.COST]),
        ([], [credential_files.COST]),
    ):
        passwords = Passwords.load(write(file, "\n".join(lines)))
        names = [line[0] for line in lines]
        for name in [*names, "unknown", "", "\ud800", "x" * 10_000]:
            for password in ("secret", "wrong", "", "x" * 73, "x" * 10_000, "\0"):
                work.clear()
                assert passwords.check(name, password) == (name in names and password == "secret")
                assert sorted(work) == costs, (name, password)


def test_threads_share_a_file(file: Path) -> None:
    passwords = Passwords.load(write(file, f"alice:{hashed('secret')}\nbob:{hashed('other', 5)}\n"))
    wrong: list[tuple[str, str]] = []

    def checks() -> None:
        for name, password in [("alice", "secret"), ("bob", "secret"), ("alice", "other"), ("bob", "other")] * 5:
            if passwords.check(name, password) != ((name, password) in (("alice", "secret"), ("bob", "other"))):
                wrong.append((name, password))

    threads = [threading.Thread(target=checks) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong


def test_sha_is_warned_of_once(file: Path) -> None:
    (warning,) = Passwords.load(write(file, f"a:{hashed('x')}\nb:{sha('x')}\nc:{sha('y')}\n")).warnings
    assert warning.startswith(f"{file}:2: {{SHA}}")
    assert "2 such" in warning
    assert f"`etherws passwd {file} NAME`" in warning
    assert sha("x")[5:] not in warning


# Tokens


def test_tokens(file: Path) -> None:
    tokens = [(name, add_token(file, name)) for name in ("alice", "bob", "alice")]
    loaded = Tokens.load(file)
    assert not loaded.warnings
    for name, token in tokens:
        assert len(base64.urlsafe_b64decode(token + "=")) == 32
        assert loaded.owner(token) == name
        assert token not in file.read_text()
        for wrong in (token[:-1], token + "x", token.swapcase(), token + "\0", ""):
            assert loaded.owner(wrong) is None
    for wrong in ("x" * 10_000, "\ud800", "é"):
        assert loaded.owner(wrong) is None
    assert remove(file, "alice")
    assert [Tokens.load(file).owner(token) for _, token in tokens] == [None, "bob", None]


def test_a_hash_made_by_hand_in_capitals(file: Path) -> None:
    digest = hashlib.sha256(b"secret").hexdigest().upper()
    assert Tokens.load(write(file, f"alice:sha256:{digest}")).owner("secret") == "alice"


DIGEST = hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"a:sha256:{DIGEST}\nb:sha256:{DIGEST}", "2: this token has an entry already"),
        (f"a:sha256:{DIGEST[1:]}", "1: sha256: wants 64 hexadecimal digits"),
        (f"a:sha256:{DIGEST}0", "1: sha256: wants 64 hexadecimal digits"),
        ("a:sha256:" + "\u0660" * 64, "1: sha256: wants 64 hexadecimal digits"),
        (f"a:sha512:{DIGEST}", "1: this is a password file; tokens go into a file of their own"),
        (f"a:{BCRYPT}", "1: this is a password file; tokens go into a file of their own"),
    ],
)
def test_token_files_that_are_refused(file: Path, content: str, words: str) -> None:
    with pytest.raises(CredentialsError) as caught:
        Tokens.load(write(file, content))
    assert str(caught.value).startswith(f"{file}:{words}")
    assert DIGEST[2:-2] not in str(caught.value)


# Either kind of file

Load = Callable[[Path], Passwords | Tokens]


@pytest.fixture(params=[Passwords.load, Tokens.load], ids=["passwords", "tokens"])
def load(request: pytest.FixtureRequest) -> Load:
    """Either kind's reader."""
    reader: Load = request.param
    return reader


def test_comments_and_blank_lines(file: Path, load: Load) -> None:
    assert not load(write(file, "")).warnings
    assert not load(write(file, "# a:b\n\n   \n\t\r\n#\n#x")).warnings


def test_lines_of_windows(file: Path) -> None:
    assert Passwords.load(write(file, f"# x\r\nalice:{hashed('secret')}\r\n\r\n")).check("alice", "secret")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"# x\nhunter2\n", ":2: has no colon"),
        (b":hunter2\n", ":1: the name is empty"),
        (b"x" * 129 + b":hunter2", ":1: the name is longer than 128 bytes"),
        ("é".encode() * 65 + b":hunter2", ":1: the name is longer than 128 bytes"),
        (b"hun\x1bter2:x\n", ":1: the name has characters that cannot be printed"),
        (b"hun\0ter2:x\n", ":1: the name has characters that cannot be printed"),
        ("hun\u2028ter2:x\n".encode(), ":1: the name has characters that cannot be printed"),
        (b"# x\n\nhunter2:\xff\n", ":3: is no UTF-8"),
        (b"x" * (credential_files.FILE_BYTES + 1), ": is larger than 16 MiB"),
    ],
)
def test_files_that_are_refused(file: Path, load: Load, content: bytes, words: str) -> None:
    with pytest.raises(CredentialsError) as caught:
        load(write(file, content))
    message = str(caught.value)
    assert message.startswith(f"{file}{words}")
    assert "; " in message or "?" in message
    assert "hun" not in message
    assert caught.value.__cause__ is None
    assert isinstance(caught.value, SettingsError)


def test_a_name_twice_and_a_token_among_passwords(file: Path) -> None:
    for second, words in (
        (f"a:{hashed('y')}", "2: this name has an entry already"),
        (f"a:{sha('y')}", "2: this name has an entry already"),
        (f"b:sha256:{DIGEST}", "2: this is a token file; passwords go into a file of their own"),
    ):
        with pytest.raises(CredentialsError, match=words):
            Passwords.load(write(file, f"a:{hashed('x')}\n{second}\n"))


def test_files_that_cannot_be_read(tmp_path: Path, load: Load) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name, words in (("none", "No such file"), (".", "no regular"), ("fifo", "no regular"), ("loop", "symbolic")):
        with pytest.raises(CredentialsError, match=words):
            load(tmp_path / name)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o660, False), (0o604, True), (0o602, True)])
def test_a_file_open_to_everyone_is_warned_of(file: Path, load: Load, mode: int, warned: bool) -> None:
    write(file, "").chmod(mode)
    assert [f"{file}: is open to everyone" in warning for warning in load(file).warnings] == [True] * warned


LINES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"a", b"b", "é".encode(), b"#"]).flatmap(
        lambda name: st.sampled_from(
            [hashed("x").encode(), sha("x").encode(), b"sha256:" + DIGEST.encode(), b"$2y$31$", b"{SHA}=", b""]
        ).map(lambda value: name + b":" + value)
    ),
)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(LINES, max_size=5).map(b"\n".join))
def test_whatever_is_in_a_file_it_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    file = write(tmp_path / "fuzz", content)
    for load in (Passwords.load, Tokens.load):
        try:
            load(file)
        except CredentialsError as exc:
            assert str(exc).startswith(f"{file}:")
            assert str(exc).isprintable()
    # What can be changed at all keeps the other lines.
    try:
        set_password(file, "carol", "secret", QUICK)
    except CredentialsError:
        assert file.read_bytes() == content
    else:
        kept = content if content.endswith(b"\n") or not content else content + b"\n"
        assert file.read_bytes().startswith(kept)


# Changing them


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
        ("a", "\udcff", 4, "the password is no UTF-8"),
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
    with pytest.raises(CredentialsError, match="this is a password file; tokens go into a file of their own"):
        add_token(file, "alice")
    assert file.read_bytes() == before
    file.unlink()
    add_token(file, "alice")
    with pytest.raises(CredentialsError, match="this is a token file; passwords go into a file of their own"):
        set_password(file, "bob", "x", QUICK)


def test_owner_mode_and_link_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    file, link = tmp_path / "real/users", tmp_path / "link"
    link.symlink_to("real/users")
    # A link to nothing makes its target.
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
        ("fifo", "no regular file"),
        (".", "no regular file"),
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
    # Whoever died holds no lock.
    assert not set_password(file, "alice", "new", QUICK)
    assert Passwords.load(file).check("alice", "new")


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


# The command


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
    assert Tokens.load(file).owner(token) == "alice"
    done = passwd("--delete", file, "alice")
    assert (done.returncode, done.stdout.decode()) == (0, f"alice is deleted from {file}\n")
    assert file.read_bytes() == b""


@pytest.mark.parametrize(
    ("arguments", "line", "words"),
    [
        ([], b"\n", "the password is empty"),
        ([], b"", "the password is empty"),
        ([], b"hunter2" * 1000, "the password is longer than 72 bytes"),
        ([], b"hunter2\xff", "the password is no UTF-8"),
        ([], b"hunter2\0", "the password has a NUL"),
        (["--cost", "31"], b"hunter2", "a cost of 31 is out of range"),
        (["--token"], b"", "this is a password file; tokens go into a file of their own"),
        (["--delete"], b"", "has no entry of this name"),
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
