"""Who is logged in, and the tokens of programs."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from etherws.errors import CredentialsError
from etherws.kernel.state_file import StateFile
from etherws.kernel.store import Store
from etherws.observe.kept_logins import KeptLogins
from etherws.observe.logins import COOKIES_MAX, LINES_MAX, TOKENS_MAX, Logins, read_tokens
from etherws.reloadable import Reloadable


def test_chance_is_enough_and_never_the_same() -> None:
    logins = Logins("c")
    assert len({logins.new_token(0.0) for _ in range(50)} | {logins.new_token(0.0)}) == 51
    assert len(logins.new_token(0.0)) == 43


def test_tokens_and_cookies_are_bounded() -> None:
    numbers = itertools.count()
    logins = Logins("c", random=lambda: f"chance-{next(numbers)}")
    tokens = [logins.new_token(0.0) for _ in range(TOKENS_MAX + 1)]
    assert logins.log_in(tokens[0], 0.0) == ""
    cookies = [logins.log_in(tokens[1], 0.0)]
    assert logins.knows(cookies[0])
    for _ in range(COOKIES_MAX):
        # Who is there is not forgotten.
        if len(cookies) == COOKIES_MAX:
            assert logins.knows(cookies[0])
        cookies.append(logins.log_in(logins.new_token(0.0), 0.0))
    assert logins.knows(cookies[0])
    assert not logins.knows(cookies[1])


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("c=right", True),
        ("a=b; c=right; d=e", True),
        ("c=wrong; c=right", True),
        ("c=right ", True),
        ("C=right", False),
        ("cc=right", False),
        ("c=righ", False),
        ("c=", False),
        ("", False),
        ("x=1; " * 60 + "c=right", False),
    ],
)
def test_a_cookie_is_found_among_others(header: str, known: bool) -> None:
    values = iter(["token", "right"])
    logins = Logins("c", random=lambda: next(values))
    assert logins.log_in(logins.new_token(0.0), 0.0) == "c=right"
    assert logins.knows(header) is known


def test_tokens_of_programs_are_those_of_the_file_as_it_is_now(tmp_path: Path) -> None:
    (file := tmp_path / "tokens").write_text("# scrapers\n\n  first-token-of-many  \nsecond-token-of-many\r\n")
    logins = Logins("c", Reloadable(lambda: read_tokens(str(file)), [str(file)]))
    assert logins.has_tokens
    assert logins.is_token("first-token-of-many")
    assert logins.is_token("second-token-of-many")
    assert not logins.is_token("# scrapers")
    assert not logins.is_token("")
    assert not logins.is_token("\udcff")
    file.write_text("another-token-now\n")
    assert not logins.is_token("first-token-of-many")
    assert logins.is_token("another-token-now")
    # What is wrong is not taken.
    file.write_text("short\n")
    assert logins.is_token("another-token-now")
    assert not Logins("c").is_token("x")
    assert not Logins("c").has_tokens


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"s3cret\n", ":1: is not a token: it needs 16 to 500"),
        (b"good-enough-token\ntwo words in a line\n", ":2: is not a token"),
        (b"good-enough-tok\xffn\n", ":1: is not a token"),
        (b"x" * 501, ":1: is not a token"),
        (b"", "has 0 tokens"),
        (b"# none\n", "has 0 tokens"),
        (b"good-enough-token\n" * (LINES_MAX + 1), f"has {LINES_MAX + 1} tokens; write 1 to {LINES_MAX}"),
        (b"#" * 70_000, "larger than 64 KiB"),
    ],
)
def test_a_file_that_is_wrong_is_refused_without_its_secrets(tmp_path: Path, content: bytes, words: str) -> None:
    (file := tmp_path / "tokens").write_bytes(content)
    with pytest.raises(CredentialsError) as refused:
        read_tokens(str(file))
    assert words in str(refused.value)
    assert "s3cret" not in str(refused.value)
    assert "good-enough" not in str(refused.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="none: cannot read: No such file"):
        read_tokens(str(tmp_path / "none"))


def test_wrong_tokens_of_an_address_are_counted() -> None:
    logins = Logins("c")
    for _ in range(5):
        assert logins.wait("192.0.2.1", 0.0) == 0
        logins.failed("192.0.2.1", 0.0)
    assert logins.wait("192.0.2.1", 0.0) == 5
    assert logins.wait("192.0.2.2", 0.0) == 0


def test_a_restart_keeps_who_is_logged_in() -> None:
    store = Store()
    kept = KeptLogins(store)
    logins = Logins("c", kept=kept)
    cookie = logins.log_in(logins.new_token(0.0), 0.0)
    store.handing_over = True
    kept.close()
    store.take_back()
    # The next image of the process.
    found = KeptLogins(store)
    assert Logins("c", kept=found).knows(cookie)
    assert not Logins("c", kept=found).knows("c=other")
    found.save(found.cookies)
    found.close()
    assert store.names() == []


def test_what_is_damaged_is_not_believed() -> None:
    file = StateFile()
    file.write({"cookies": ["zz"]})
    junk = os.memfd_create("junk")
    kept = KeptLogins(Store({"monitor": [junk, file.fd]}))
    assert kept.cookies == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(junk)
    kept.close()
