"""``--help``, and the errors for names that people type by habit, as users see them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from etherws.cli.commands import main
from etherws.cli.manual import contexts
from etherws.cli.sections import Command
from tests.lab.pages import DOCS, pages
from tests.lab.readme import README

#: Options of other programs that README.rst and docs/ name, by program.
OF_OTHERS = {
    "gunicorn": (
        "--ca-certs",
        "--cert-reqs",
        "--chdir",
        "--log-config",
        "--max-requests",
        "--preload",
        "--timeout",
        "--worker-connections",
    ),
    "scripts of bench/ and tests/": (
        *("--clients", "--limit", "--losses", "--peers", "--persistent", "--rounds", "--sessions", "--sizes", "--tree"),
        "--window",
    ),
    "podman": (
        *("--build-arg", "--cap-add", "--health-cmd", "--network", "--privileged", "--publish", "--read-only"),
        *("--restart", "--secret", "--sysctl", "--tmpfs"),
    ),
    "OpenVPN": ("--remote",),
    "apt, certbot, dpkg and systemctl": ("--allow-downgrades", "--configure", "--kill-who", "--manual", "--signal"),
    "contrib/v86": ("--listen",),
    "cloudflared": ("--http1",),
    "what people type by mistake": ("--cert",),
}

COMMANDS = ["server", "client", "demo", "passwd", "check", "status", "events", "kick", "drain", "bundle"]


def options(name: str) -> Iterator[click.Option]:
    """The options of a command."""
    return (param for param in main.commands[name].params if isinstance(param, click.Option))


def context(name: str) -> click.Context:
    """A command's context, as in a start. Without its group's settings click would keep a --help that has no -h."""
    group = main.make_context("etherws", [name], resilient_parsing=True)
    return click.Context(main.commands[name], info_name=name, parent=group)


def shown(*arguments: str) -> str:
    """What a start that does nothing prints, without breaks in its lines."""
    return " ".join(CliRunner().invoke(main, arguments).output.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_under_one_heading(name: str) -> None:
    command = main.commands[name]
    assert isinstance(command, Command)
    text = shown(name, "--help")
    assert list(options(name)) == [option for section in command.sections.values() for option in section]
    for option in options(name):
        assert any(f" {opt} " in text or f" {opt}, " in text for opt in option.opts), option.opts
    for heading in (*command.sections, *command.notes):
        assert f"{heading}:" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_text_is_a_sentence_that_ends_with_its_default(name: str) -> None:
    for option in options(name):
        assert option.help
        assert re.fullmatch(r"[A-Z][^\[\]]*\.(  \[default: [^\[\]]+\])?", option.help), option.help
        with context(name) as ctx:
            record = option.get_help_record(ctx)
        assert record
        # What is not given has a meaning, too. A switch says what it does; it is off unless it is given.
        assert "[default: " in record[1] or option.is_flag or option.name == "uri", record


@pytest.mark.parametrize("name", COMMANDS)
def test_every_metavar_says_what_to_write(name: str) -> None:
    for param in main.commands[name].params:
        with context(name) as ctx:
            metavar = param.make_metavar(ctx=ctx)
        if not (isinstance(param, click.Option) and param.is_flag):
            assert metavar not in ("TEXT", "PATH", "INTEGER", "FLOAT", "DURATION") or param.name == "path"
            assert re.fullmatch(r"[A-Z0-9:='@|/\[\] ]+", metavar), metavar


@pytest.mark.parametrize("switch", ["--help", "-h"])
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_80_columns(name: str, switch: str) -> None:
    arguments = [name, switch] if name else [switch]
    for width in (80, 200):
        done = CliRunner(env={"COLUMNS": str(width)}).invoke(main, arguments)
        assert done.exit_code == 0
        lines = done.output.splitlines()
        assert max(map(len, lines)) <= 80, max(lines, key=len)
        # No word is broken, and no text is cut short.
        assert not [line for line in lines if re.search(r"\w-$|[\w,]\.\.\.$", line)]


def test_help_in_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "etherws", "client", "-h"],
        capture_output=True,
        text=True,
        check=True,
        env={"LC_ALL": "C"},
    )
    assert done.stderr == ""
    assert done.stdout.startswith("Usage: etherws client [OPTIONS] [URI]\n")
    assert "\n  ETHERWS_CLIENT_PASSWORD " in done.stdout.replace("\n    ", "\n  ")
    assert max(map(len, done.stdout.splitlines())) <= 80


def prose() -> str:
    """README.rst and docs/, in one text."""
    return "\n".join(path.read_text(encoding="utf-8") for path in (README, *(DOCS / page for page in pages())))


@pytest.mark.parametrize("name", ["server", "client"])
def test_a_page_says_what_each_option_is_for(name: str) -> None:
    """The reference has what --help has; what cannot be said in one line is in a page."""
    text = prose()
    for option in options(name):
        written = "|".join(re.escape(opt) for opt in (*option.opts, *option.secondary_opts))
        # In a configuration file it has no dashes.
        key = max(option.opts, key=len).removeprefix("--")
        assert re.search(rf"(?<![\w-])(?:{written})(?![\w-])|``{key}\b", text), option.opts


def test_pages_name_options_that_there_are() -> None:
    named = {
        found
        for literal in re.findall(r"``([^`]+)``", prose())
        for found in re.findall(r"(?<![\w-])--\w[\w-]*", literal)
    }
    ours = {
        opt
        for ctx in contexts()
        for param in ctx.command.get_params(ctx)
        for opt in (*param.opts, *param.secondary_opts)
    }
    others = {opt for opts in OF_OTHERS.values() for opt in opts}
    assert named - ours <= others


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("server --cert x", "no option --cert; the certificate is given by --certfile FILE"),
        ("client --sslcert=x", "no option --sslcert; the certificate is given by --certfile FILE"),
        ("server --uri ws://h/", "--uri is an option of etherws client"),
        ("server -dev tap0", "no option --dev; the interface's name is given by --device NAME"),
        ("client -user alice", "no option -user; write --user, with two dashes"),
        ("client -u -user ws://h/ --cert x", "no option --cert"),
        ("server -- -dev", "the server takes only options"),
        ("server 8080", "the server takes only options; write --port 8080"),
        ("client ws://h/ 8080", "write --uri ws://HOST:8080/"),
        ("client host", "--uri 'host': it has no scheme; write ws://HOST/ or wss://HOST/"),
        ("demo a", "there is an argument too many"),
        ("demo --port 1", "--port is an option of etherws server"),
        ("ws://host/", "no command is named; write etherws client --uri ws://host/"),
        ("ps", "no command ps; who is connected is shown by etherws status"),
        ("frobnicate", "No such command 'frobnicate'."),
        ("-V", "no option -V; the version is printed by etherws --version"),
        ("-z", "No such option '-z'."),
        ("server --frobnicate", "No such option '--frobnicate'."),
        ("--uri ws://h/ client", "--uri is an option of etherws client; write it behind the command"),
    ],
)
def test_what_is_typed_by_habit_is_refused_with_what_to_write(line: str, words: str) -> None:
    done = CliRunner().invoke(main, line.split())
    assert done.exit_code in (1, 2)
    assert words in done.output


def test_the_commands_are_in_the_order_of_use() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    places = [text.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)
