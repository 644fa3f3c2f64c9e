"""Files of passwords and tokens: which entries are accepted, and what is refused by name."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etherws.access import credential_files
from etherws.access.credential_files import Passwords, Tokens, check_name
from etherws.errors import CredentialsError, SettingsError
from tests.lab.passwords import BCRYPT, DIGEST, LINES, hashed, htpasswd, sha, write


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "users"


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
        (BCRYPT.replace("$04$", "$03$"), "cost is 03"),
        (BCRYPT.replace("$04$", "$16$"), "cost is 16"),
        (BCRYPT.replace("$04$", "$31$"), "cost is 31"),
        ("abJnggxhB/yWI", "crypt (DES)"),
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
    # The last hash is of "-", which is checked instead of an unusable password.
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
    # The cost of a password file that has none, less than in use, for the sake of time.
    monkeypatch.setattr(credential_files, "COST", 8)
    for lines, costs in (
        ([f"a:{hashed('secret', 5)}"], [5]),
        ([f"a:{hashed('secret', 4)}", f"b:{hashed('secret', 7)}", f"c:{hashed('secret', 5)}"], [4, 5, 7]),
        ([f"a:{sha('secret')}", f"b:{hashed('secret', 6)}"], [6]),
        ([f"a:{sha('secret')}"], [8]),
        ([], [8]),
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


def test_a_token_leads_to_its_name(file: Path) -> None:
    lines = [f"{name}:sha256:{hashlib.sha256(token.encode()).hexdigest()}" for name, token in (("a", "x"), ("b", "y"))]
    loaded = Tokens.load(write(file, "\n".join(lines)))
    assert not loaded.warnings
    assert [loaded.name_of(token) for token in ("x", "y", "z", "", "X", "x\0", "\ud800")] == ["a", "b"] + [None] * 5


def test_a_hash_made_by_hand_in_capitals(file: Path) -> None:
    digest = hashlib.sha256(b"secret").hexdigest().upper()
    assert Tokens.load(write(file, f"alice:sha256:{digest}")).name_of("secret") == "alice"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"a:sha256:{DIGEST}\nb:sha256:{DIGEST}", "2: this token has an entry already"),
        (f"a:sha256:{DIGEST[1:]}", "1: sha256: needs 64 hexadecimal digits"),
        (f"a:sha256:{DIGEST}0", "1: sha256: needs 64 hexadecimal digits"),
        ("a:sha256:" + "\u0660" * 64, "1: sha256: needs 64 hexadecimal digits"),
        (f"a:sha512:{DIGEST}", "1: this is a password file; tokens need a file of their own"),
        (f"a:{BCRYPT}", "1: this is a password file; tokens need a file of their own"),
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
        (b"# x\n\nhunter2:\xff\n", ":3: is not UTF-8"),
        (b"x" * (credential_files.FILE_MAX + 1), ": is larger than 16 MiB"),
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


@pytest.mark.parametrize("name", ["a:b", ":", "#a"])
def test_a_name_that_would_not_be_read_back_is_refused(name: str) -> None:
    with pytest.raises(CredentialsError, match=r"^the name has a colon or begins with #; leave them out$"):
        check_name("the name", name)
    check_name("the name", "a#b")


def test_a_token_in_the_place_of_its_entry_is_called_that(file: Path) -> None:
    with pytest.raises(CredentialsError, match=r"; is it the client's file, with the token itself[?]$"):
        Tokens.load(write(file, "dpvEoJ09sZ\n"))


def test_a_name_twice_and_a_token_among_passwords(file: Path) -> None:
    for second, words in (
        (f"a:{hashed('y')}", "2: this name has an entry already"),
        (f"a:{sha('y')}", "2: this name has an entry already"),
        (f"b:sha256:{DIGEST}", "2: this is a token file; passwords need a file of their own"),
    ):
        with pytest.raises(CredentialsError, match=words):
            Passwords.load(write(file, f"a:{hashed('x')}\n{second}\n"))


def test_files_that_cannot_be_read(tmp_path: Path, load: Load) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name, words in (
        ("none", "No such file"),
        (".", "not a regular"),
        ("fifo", "not a regular"),
        ("loop", "symbolic"),
    ):
        with pytest.raises(CredentialsError, match=words):
            load(tmp_path / name)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o660, False), (0o604, True), (0o602, True)])
def test_a_file_open_to_everyone_is_warned_of(file: Path, load: Load, mode: int, warned: bool) -> None:
    write(file, "").chmod(mode)
    assert [f"{file}: is open to everyone" in warning for warning in load(file).warnings] == [True] * warned


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(LINES, max_size=5).map(b"\n".join))
def test_whatever_is_in_a_file_it_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    file = write(tmp_path / "fuzz", content)
    for load in (Passwords.load, Tokens.load):
        try:
            load(file)
        except CredentialsError as exc:
            assert str(exc).startswith(f"{file}:")
            assert str(exc).isprintable()


def test_an_entry_tells_whether_it_is_still_the_same(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    lines = {"alice": hashed("x"), "bob": sha("x")}

    def entries(**changes: str) -> list[bytes | None]:
        text = "".join(f"{name}:{value}\n" for name, value in {**lines, **changes}.items())
        loaded = Passwords.load(write(file, text))
        return [loaded.entry(name) for name in ("alice", "bob", "carol")]

    before = entries()
    assert before == entries(dave=hashed("y"))
    assert before[2] is None
    assert before[0] != before[1]
    # Another salt is another entry, and so is another hash of the same password.
    assert [a == b for a, b in zip(before, entries(alice=hashed("x"), bob=hashed("x")), strict=True)] == [
        *(False, False, True)
    ]
    assert not any(str(entry).count(lines["alice"]) for entry in before)


def test_a_tokens_entry_tells_its_owner(tmp_path: Path) -> None:
    tokens = Tokens.load(write(tmp_path / "tokens", f"alice:sha256:{DIGEST}\n"))
    assert tokens.owner(Tokens.entry("x")) == "alice"
    assert tokens.owner(Tokens.entry("y")) is None
