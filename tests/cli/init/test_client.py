"""``etherws init client``: what it takes and writes, and what it refuses. tests/system/test_init.py has a server."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from etherws.check import trial
from etherws.cli.commands import main
from etherws.cli.init import client, common, units
from etherws.config.invitation import LIFETIME, Invitation
from etherws.errors import ConnectError, NotAdmitted, OtherKey, SettingsError

INVITATION = Invitation("wss://host.example:443/", "t" * 43, f"sha256//{'A' * 43}=", "lan", "branch1", int(time.time()))


@pytest.fixture(autouse=True)
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """The servers that were tried; each lets the client in."""
    found: list[tuple[str, str, str]] = []
    monkeypatch.setattr(trial, "trial", lambda *arguments: found.append(arguments))
    return found


def typed(folder: Path, *arguments: str, line: str = INVITATION.line()) -> Any:
    """What ``etherws init client`` comes to, with this line on its standard input."""
    arguments = ("init", "client", "--config-dir", str(folder), *arguments)
    return CliRunner().invoke(main, arguments, input=line)


def test_a_set_up(tmp_path: Path, tried: list[tuple[str, str, str]]) -> None:
    done = typed(tmp_path, "--bridge", "br0")
    assert done.exit_code == 0, done.output
    assert tried == [(INVITATION.uri, INVITATION.pin, INVITATION.token)]
    assert INVITATION.token not in done.output
    assert "The server lets this client in." in done.output
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"lan.toml": 0o640, "lan.token": 0o600}
    assert (tmp_path / "lan.token").read_text() == INVITATION.token + "\n"
    assert 'bridge = "br0"' in (tmp_path / "lan.toml").read_text()
    assert INVITATION.token not in (tmp_path / "lan.toml").read_text()
    checked = CliRunner().invoke(main, ["check", str(tmp_path / "lan.toml")])
    assert (checked.exit_code, "the server is known by its key" in checked.output) == (0, True)


def test_it_asks_for_a_bridge_only_without_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return "br7"

    monkeypatch.setattr(client, "ask", answer)
    monkeypatch.setattr(units, "enable", lambda role, name, restart: None)
    monkeypatch.setattr(units, "wanted", bool)
    for number, options in enumerate((["--enable"], ["--device", "lan0"], [])):
        assert typed(tmp_path / str(number), *options).exit_code == 0
        assert bool(asked) == (not options)
    assert 'bridge = "br7"' in (tmp_path / "2/lan.toml").read_text()


def test_no_error_repeats_a_line_that_was_pasted_where_it_does_not_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quoted = f"> {INVITATION.line()}"
    done = typed(tmp_path, quoted)
    assert (done.exit_code, "an invitation is a secret" in done.output) == (2, True)
    assert INVITATION.line()[30:60] not in done.output
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.prompt", lambda *_, **__: quoted)
    with pytest.raises(SettingsError, match="this was not the question for the invitation") as caught:
        common.ask("Bridge")
    assert INVITATION.line()[30:60] not in str(caught.value)


def test_a_server_of_an_authority_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "line").write_text(replace(INVITATION, pin="").line() + "\n")
    done = typed(tmp_path / "client", "home", "--invitation", str(tmp_path / "line"), "--no-try", line="")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "client" / "home.toml").read_text()
    assert ("insecure" in text, 'token-file = "home.token"' in text) == (False, True)
    assert f"warning: every user of this machine can read or change {tmp_path}/line; chmod o-rw" in done.output
    (tmp_path / "line").chmod(0o600)
    done = typed(tmp_path / "client", "--replace", "--invitation", str(tmp_path / "line"), "--no-try", line="")
    assert (done.exit_code, "warning" in done.output) == (0, False)
    done = typed(tmp_path / "client", "--invitation", str(tmp_path / "gone"))
    assert (done.exit_code, "cannot read --invitation" in done.output) == (1, True)


def test_a_set_up_that_is_there_stays(tmp_path: Path) -> None:
    typed(tmp_path)
    other = replace(INVITATION, uri="wss://other.example/", token="u" * 43).line()
    done = typed(tmp_path, line=other)
    assert (done.exit_code, "as in etherws init client lan2, or --replace" in done.output) == (1, True)
    assert (tmp_path / "lan.token").read_text() == INVITATION.token + "\n"
    assert typed(tmp_path, "--replace", line=other).exit_code == 0
    assert (tmp_path / "lan.token").read_text() == "u" * 43 + "\n"
    assert "wss://other.example/" in (tmp_path / "lan.toml").read_text()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "there is no invitation"),
        (INVITATION.line()[:-20], "was cut or changed"),
        (INVITATION.line()[:100], "was cut or changed"),
        ("Hello\n" * 5000, "this is no invitation"),
        (replace(INVITATION, made=int(time.time()) - LIFETIME - 60).line(), "and holds for 7 days"),
        (replace(INVITATION, uri="wss://h ost/\x1b").line(), "--uri 'wss://h ost/\\x1b'"),
        (replace(INVITATION, name="../../x").line(), "has no name that can be used"),
    ],
    ids=range(7),
)
def test_a_line_that_cannot_be_used(line: str, words: str, tmp_path: Path) -> None:
    done = typed(tmp_path, line=line)
    assert (done.exit_code, words in done.output) == (1, True)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OtherKey("x"), 1, "the line comes from another server, or the server was set up anew; make a new line"),
        (NotAdmitted("x"), 1, "the line is old, or comes from another server; make a new line on the server"),
        (ConnectError("no answer\x1b"), 0, "cannot be reached now, and the client will go on trying: no answer?"),
    ],
)
def test_what_the_try_comes_to(
    error: ConnectError, status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: str) -> None:
        raise error

    monkeypatch.setattr(trial, "trial", fail)
    done = typed(tmp_path)
    assert (done.exit_code, words in done.output) == (status, True), done.output
    assert bool([*tmp_path.iterdir()]) == (status == 0)


def test_a_secret_is_no_argument(tmp_path: Path) -> None:
    done = typed(tmp_path, INVITATION.line())
    assert done.exit_code == 2
    assert "all users can read a command line" in " ".join(done.output.split())
    assert INVITATION.token not in done.output


@pytest.mark.parametrize("arguments", [("--bridge", "a/b"), ("--device", "a b")])
def test_mistakes_are_found_before_the_line_is_asked_for(arguments: tuple[str, str], tmp_path: Path) -> None:
    done = typed(tmp_path, *arguments, line="")
    assert (done.exit_code, "is not a valid interface name" in done.output) == (1, True)
