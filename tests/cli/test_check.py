"""``etherws check`` as users type it: what it prints, in JSON, and its exit status."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from etherws.check import network
from etherws.check.findings import Finding, Verdict
from etherws.check.path.trace import Target
from etherws.cli import check
from etherws.cli.commands import main
from etherws.errors import SettingsError

FINDINGS = [
    Finding("names", "lan.example is 192.0.2.1"),
    Finding("tcp", "no answer\x1b[31m\nby 192.0.2.1", Verdict.WARNING, "is it up?", {"seconds": 1}),
    Finding("idle", "not looked at", Verdict.SKIPPED),
]


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> list[Target]:
    """The targets that were looked at; FINDINGS are what was found."""
    seen: list[Target] = []

    def found(target: Target) -> Iterator[Finding]:
        seen.append(target)
        yield from FINDINGS

    monkeypatch.setattr(network, "network", found)
    return seen


def typed(*arguments: str, **env: str) -> Any:
    """What this command line comes to."""
    return CliRunner(env=env).invoke(main, ["check", *arguments])


def test_lines_in_a_pipe(targets: list[Target]) -> None:
    done = typed("ws://lan.example/")
    assert (done.exit_code, done.output.splitlines()) == (
        0,
        [
            "OK      names         lan.example is 192.0.2.1",
            "warning tcp           no answer?[31m?by 192.0.2.1",
            "                      -> is it up?",
            "skipped idle          not looked at",
            "Nothing has failed; 1 warning.",
        ],
    )


def test_lines_on_a_terminal(targets: list[Target], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_is_terminal", lambda: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: (60, 24))
    finding = Finding("tcp", "word " * 20, Verdict.FAILED, "mend " * 20)
    monkeypatch.setattr(network, "network", lambda _: iter([finding]))
    done = CliRunner().invoke(main, ["check", "ws://lan.example/"], color=True)
    lines = done.output.splitlines()
    assert lines[0].startswith("\x1b[31mFAILED  \x1b[0mtcp ")
    assert all(line.startswith(" " * 22) for line in lines[1:-1])
    assert lines[-1] == "1 failed, 0 warnings."
    done = CliRunner(env={"NO_COLOR": "1"}).invoke(main, ["check", "ws://lan.example/"], color=True)
    assert "\x1b" not in done.output


def test_one_json_document(targets: list[Target]) -> None:
    done = typed("--json", "wss://alice:secret@lan.example/tunnel?token=secret")
    found = json.loads(done.output)
    assert (found["schema"], found["target"], found["status"]) == (1, "wss://lan.example:443/tunnel", 0)
    assert found["findings"][1] == FINDINGS[1].values()
    assert "secret" not in done.output
    assert targets[0].credentials.user == "alice"


def test_a_failure_makes_the_status_1(targets: list[Target], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Target) -> Iterator[Finding]:
        yield FINDINGS[0]
        raise SettingsError("cannot read the file")

    monkeypatch.setattr(network, "network", broken)
    done = typed("--json", "ws://lan.example/")
    assert done.exit_code == 1
    assert json.loads(done.output)["findings"][1]["found"] == "cannot read the file"
    monkeypatch.setattr(network, "network", lambda _: iter(FINDINGS[:1]))
    done = typed("ws://lan.example/")
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "Nothing is wrong.")


def test_the_options_are_those_of_the_client(targets: list[Target], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 43)
    done = typed(
        "wss://lan.example/", "--sni", "other.example", "-4", "-x", "http://proxy:1", "-H", "A: b", "--idle",
        ETHERWS_CLIENT_TOKEN_FILE=str(token), ETHERWS_CLIENT_CONNECT_TIMEOUT="3s",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (target,) = targets
    assert (target.trust.sni, target.timeout, target.idle) == ("other.example", 3.0, 300.0)
    assert (target.proxy_choice.proxy, target.proxy_choice.family) == ("http://proxy:1", 4)
    assert (target.headers, target.credentials.token_file) == ([("A", "b")], str(token))


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("lan.example", 2, "there is no file lan.example; for a server write wss://lan.example/"),
        ("--sni x", 2, "--sni is for the path to a server; write etherws check URI --sni ..."),
        ("http://lan.example/", 1, "the same server's tunnel is ws://"),
        ("ws://h/ ws://i/", 2, "there is an argument too many"),
        ("ws://h/ -4 -6", 2, "give --ipv4 or --ipv6, not both"),
        ("ws://h/ --insecure --cacert x", 1, "--insecure verifies nothing"),
    ],
)
def test_what_cannot_be_checked(line: str, status: int, words: str) -> None:
    done = typed(*line.split())
    assert done.exit_code == status
    assert words in " ".join(done.output.split())
