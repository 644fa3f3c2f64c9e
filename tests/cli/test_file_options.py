"""Options that name files: all of them are found here by what click knows, so that a new one cannot be forgotten."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from etherws.cli.commands import client, server
from etherws.cli.file_options import FileName, Pins
from etherws.file_names import FILE_OPTIONS

OPTIONS = [
    pytest.param(param, id=f"{command.name} {param.opts[-1]}")
    for command in (client, server)
    for param in command.params
    if isinstance(param, click.Option)
]

#: What each option with another form than FILE makes of a file's name.
FORMS = {"--header": "@{}", "--address": "unix:{}"}

#: Every option that names a file, of both commands: a change here is a change of what users can do.
NAMED = {
    "client": {
        "change",
        "config",
        "cacert",
        "certfile",
        "control",
        "down",
        "monitor_token_file",
        "header",
        "keyfile",
        "password_file",
        "pidfile",
        "pinnedpubkey",
        "state_dir",
        "token_file",
        "up",
    },
    "server": {
        "change",
        "config",
        "address",
        "certfile",
        "control",
        "down",
        "monitor_token_file",
        "client_ca",
        "htpasswd",
        "keyfile",
        "pidfile",
        "policy",
        "state_dir",
        "token_file",
        "up",
    },
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_names_a_file_makes_it_absolute(
    option: click.Option, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names_file = re.search(r"\bfile\b|FILE|unix:", f"{option.help} {option.metavar}")
    if not isinstance(option.type, FileName):
        assert not isinstance(option.type, click.Path | click.File), "use a type of file_options.py"
        assert not names_file, "does it name a file? Use a type of file_options.py"
        return
    monkeypatch.chdir(tmp_path)
    form = FORMS.get(option.opts[-1], "{}")
    assert option.type.convert(form.format("a/b"), option, None) == form.format(f"{tmp_path}/a/b")
    with pytest.raises(click.BadParameter, match="give the name of a regular file"):
        option.type.convert(form.format("/dev/fd/987"), option, None)


@pytest.mark.parametrize("command", [client, server], ids=lambda command: command.name)
def test_the_options_that_name_files(command: click.Command) -> None:
    assert {param.name for param in command.params if isinstance(param.type, FileName)} == NAMED[str(command.name)]


def test_who_knows_no_option_knows_those_that_name_files() -> None:
    of_other_forms = {"config", "header", "address", "pinnedpubkey"}
    assert set().union(*NAMED.values()) - of_other_forms == FILE_OPTIONS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("header", "X-Key: a/b"),
        ("pinnedpubkey", "sha256//AAAA;sha256//BBBB"),
        ("address", "192.0.2.1"),
        ("address", "unix:@name"),
    ],
)
def test_a_value_that_is_no_file_stays(name: str, value: str) -> None:
    option = next(param for command in (client, server) for param in command.params if param.name == name)
    assert option.type.convert(value, option, None) == value
    assert Pins().convert("sha256//x", None, None) == "sha256//x"
