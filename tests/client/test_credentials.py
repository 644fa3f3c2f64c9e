"""The client's credentials: what goes together, what is sent, and that no secret is shown."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from etherws.client import credentials
from etherws.client.credentials import (
    SECRET_MAX,
    Credentials,
    hide_from_process_list,
    password_in_url,
    read_headers,
    secrets_in_environ,
    split_user,
)
from etherws.errors import SettingsError

PASSWORD = "correct horse"


def test_a_login_shows_no_secret() -> None:
    for login in (Credentials("alice", PASSWORD), Credentials(token="sesame")):
        assert PASSWORD not in repr(login)
        assert "sesame" not in repr(login)
    for wrong in ({"user": "a:b"}, {"user": "alice", "token": "x"}, {"token": "with blank"}):
        with pytest.raises(SettingsError) as caught:
            Credentials(**wrong)
        assert "with blank" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, None),
        ({"user": "alice", "password": "s:\u00e9"}, "Basic " + base64.b64encode("alice:s:\u00e9".encode()).decode()),
        ({"user": "alice"}, "Basic " + base64.b64encode(b"alice:").decode()),
        ({"token": "abc~"}, "Bearer abc~"),
        ({"token": ""}, None),
    ],
)
def test_the_header_that_is_sent(values: dict[str, Any], expected: str | None) -> None:
    assert Credentials(**values).authorization() == expected
    assert bool(Credentials(**values)) == (expected is not None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"user": ""}, "--user '': a user name must not be empty"),
        ({"user": "a:b"}, "--user 'a:b': .* no colon"),
        ({"user": "a", "token": "t"}, "two ways to log in"),
        ({"user": "a", "token_file": "/none"}, "two ways to log in"),
        ({"password": "p"}, "give --user NAME"),
        ({"password_file": "/none"}, "give --user NAME"),
        ({"token": "a b"}, "characters that no token can have"),
        ({"token": "branch1:sha256:" + "0" * 64}, "an entry of the server's file, which has only its hash"),
        ({"token": "\u00e9"}, "characters that no token can have"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Credentials(**values)


def test_files_are_read_at_each_attempt(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"one\r\nmore\n")
    password, token = Credentials("a", password_file=str(file)), Credentials(token_file=str(file))
    assert token
    for secret in ("one", "two", "x" * SECRET_MAX):
        file.write_text(f"{secret}\nmore\n")
        assert password.authorization() == "Basic " + base64.b64encode(f"a:{secret}".encode()).decode()
        assert token.authorization() == f"Bearer {secret}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read --token-file .*: No such file"),
        (b"", "its first line must have 1 to 1024 characters"),
        (b"\nsecret", "its first line must have 1 to 1024"),
        (b"x" * (SECRET_MAX + 1), "its first line must have 1 to 1024"),
        (b"\xff", "it is not UTF-8"),
        ("€".encode() * SECRET_MAX + b"x", "its first line must have 1 to 1024"),
        ("\U0001f600".encode() * SECRET_MAX + b"\xf0", "its first line must have 1 to 1024"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=words) as caught:
        Credentials(token_file=str(file))
    assert "xxx" not in str(caught.value)


def test_a_long_secret_may_have_letters_of_four_bytes(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("\U0001f600" * SECRET_MAX + "\r\nmore")
    expected = base64.b64encode(("a:" + "\U0001f600" * SECRET_MAX).encode()).decode()
    assert Credentials("a", password_file=str(file)).authorization() == f"Basic {expected}"


def test_a_secret_in_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (str(tmp_path / "fifo"), "/dev/zero", str(tmp_path)):
        with pytest.raises(SettingsError, match=r"cannot read --token-file .*: it is not a regular file"):
            Credentials(token_file=path)


def test_headers_come_from_the_option_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_bytes("A: 1\r\n\nB: ü\n".encode())
    assert read_headers(f"@{file}") == ["A: 1", "B: ü"]
    assert read_headers("C: @x") == ["C: @x"]
    file.write_bytes(b"A: \xff")
    with pytest.raises(SettingsError, match=r"cannot use --header .*: it is not UTF-8"):
        read_headers(f"@{file}")
    with pytest.raises(SettingsError, match=r"cannot read --header .*: No such file"):
        read_headers("@/none")


@pytest.mark.parametrize(
    ("text", "expected"), [("a", ("a", None)), ("a:", ("a", "")), ("a:b:c", ("a", "b:c")), (":b", ("", "b"))]
)
def test_a_user_and_a_password_in_one_text(text: str, expected: tuple[str, str | None]) -> None:
    assert split_user(text) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://host/", None),
        ("ws://user@host/", None),
        ("ws://user:p%40:x@host/", "p%40:x"),
        ("ws://user:p/w@x@host/", "p/w@x"),
        ("user:pw@host", "pw"),
        ("user:p/w@x@host:3128", "p/w@x"),
        ("user@host:3128", None),
        ("host:3128", None),
        ("", None),
    ],
)
def test_the_password_in_a_url(url: str, expected: str | None) -> None:
    assert password_in_url(url) == expected


def test_secrets_in_the_environment() -> None:
    assert secrets_in_environ({}) == (None, None)
    assert secrets_in_environ({"ETHERWS_CLIENT_PASSWORD": "", "ETHERWS_CLIENT_TOKEN": ""}) == (None, None)
    assert secrets_in_environ({"ETHERWS_CLIENT_PASSWORD": "p", "ETHERWS_CLIENT_TOKEN": "t"}) == ("p", "t")


def test_secrets_leave_the_command_line() -> None:
    code = (
        "import sys; from etherws.client.credentials import hide_from_process_list as hide\n"
        "hide([None, '', 's3cr3t']); print(open('/proc/self/cmdline').read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--user", "alice:s3cr3t"], capture_output=True, text=True, check=True
    )
    assert "alice:xxx" in done.stdout
    assert "s3cr3t" not in done.stdout.split("alice:")[1]


def test_values_of_headers_leave_the_command_line() -> None:
    code = (
        "import sys; from etherws.client.credentials import hide_from_process_list as hide\n"
        "hide([], ['', *sys.argv[2::2]]); print(open('/proc/self/cmdline').read())"
    )
    headers = ["Authorization: Bearer s3cr3t", "X: 1", "Cookie:a=s3cr3t", "s3cr3t"]
    arguments = [word for header in headers for word in ("-H", header)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "ws://10.0.0.1/"], capture_output=True, text=True, check=True
    )
    shown = done.stdout.replace("\0", " ")
    for word in ("Authorization: xxx", "X: xxx", "Cookie: xxx", "-H xxx", "10.0.0.1"):
        assert word in shown
    assert "s3cr3t" not in shown


def test_the_process_title_changes_only_if_there_is_something_to_hide(monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(credentials, "setproctitle", titles.append)
    hide_from_process_list(["no argument of this process \udcff", None])
    assert titles == []
    argument = os.fsdecode(Path("/proc/self/cmdline").read_bytes().split(b"\0")[0])
    hide_from_process_list([argument])
    assert len(titles) == 1
    assert argument not in titles[0]
    assert titles[0].startswith("xxx")
    hide_from_process_list([], ["", argument])
    assert len(titles) == 2
    assert argument not in titles[1]
