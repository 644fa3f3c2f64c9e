"""The examples and the environment's names that ``--help`` shows: each is understood."""

from __future__ import annotations

import re

import click
import pytest

from etherws.cli import examples
from etherws.cli.commands import main
from tests.lab.readme import understand

NOTES = [
    *(examples.main_notes, examples.server_notes, examples.client_notes, examples.passwd_notes),
    *(examples.init_notes, examples.init_server_notes, examples.init_client_notes),
]

#: Names without an option: client/credentials.py reads them.
SECRETS = {"PASSWORD", "TOKEN"}


@pytest.mark.parametrize(
    "line",
    [
        line.partition("   ")[0]
        for notes in NOTES
        for text in notes.values()
        for line in text.splitlines()
        if line.startswith("etherws ") and "COMMAND" not in line
    ],
)
def test_every_example_is_understood(line: str) -> None:
    understand(line)


@pytest.mark.parametrize(("name", "notes"), [("server", examples.server_notes), ("client", examples.client_notes)])
def test_the_environment_that_help_names_is_read(name: str, notes: dict[str, str]) -> None:
    known = {str(param.name).upper() for param in main.commands[name].params if isinstance(param, click.Option)}
    named = re.findall(rf"ETHERWS_{name.upper()}_(\w+)", notes["Environment"])
    assert len(named) >= 3
    assert set(named) <= known | SECRETS
