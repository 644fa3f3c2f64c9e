"""The options: each has a variable in the environment, named as the option."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from etherws.cli.commands import client, main, server


@pytest.mark.parametrize("command", [client, server], ids=lambda command: command.name)
def test_the_variable_of_each_option_has_its_name(command: click.Command) -> None:
    # click derives the variable from the parameter: ETHERWS_CLIENT_ and the name in capitals.
    options = [param for param in command.params if isinstance(param, click.Option)]
    assert len(options) > 20
    for option in options:
        names = {name.removeprefix("--").replace("-", "_") for name in option.opts if name.startswith("--")}
        assert option.name in names
        assert option.help


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["server", "--client-ca", "ca.pem"], 1, "--client-ca needs TLS: --certfile and --keyfile"),
        (["client"], 2, "no server is named; give --uri ws://HOST/"),
        (["client", "--uri", "ws://a/", "ws://b/"], 2, "name the server once"),
    ],
)
def test_options_that_need_others_are_named(arguments: list[str], status: int, words: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, words in done.output) == (status, True)
