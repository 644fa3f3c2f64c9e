"""Names that people type by habit: each is told what to write, and what it is told exists."""

from __future__ import annotations

import re

import click
import pytest

from etherws.cli.commands import main
from etherws.cli.habits import COMMANDS, OPTIONS, argument_hint, command_hint, option_hint

#: An option in a sentence.
OPTION = re.compile(r"(?<![\w/-])--?[a-z][a-z0-9-]*")


def options_of(command: click.Command) -> set[str]:
    """The names of a command's options, --help with them."""
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("command", OPTIONS)
def test_a_hint_names_an_option_that_exists_and_answers_for_none_that_does(command: str) -> None:
    known = options_of(main.commands[command])
    assert not OPTIONS[command].keys() & known
    for name, hint in OPTIONS[command].items():
        assert name.startswith("-"), name
        own, *others = hint.split("; etherws client has ")
        named = OPTION.findall(own.replace("kill -USR1", "kill"))
        assert named or "etherws client or etherws server" in own
        assert known.issuperset(named), f"{name}: {hint}"
        assert all(set(OPTION.findall(other)) <= options_of(main.commands["client"]) for other in others), hint


#: What the programs beside etherws call the things that it has options for.
ELSEWHERE = {
    "OpenVPN": "--remote --local --lport --rport --dev --ca --cert --key --tun-mtu --peer-fingerprint --auth-user-pass "
    "--auth-user-pass-verify --http-proxy --socks-proxy --keepalive --connect-retry --connect-retry-max --proto --verb "
    "--log --syslog --daemon --writepid --group --chroot --status --management --up --down --route --redirect-gateway "
    "--push --pull --topology --dhcp-option --persist-tun --persist-key --nobind --comp-lzo --compress --lladdr",
    "WireGuard": "--endpoint --persistent-keepalive --allowed-ips --private-key",
    "wstunnel": "--tls-certificate --tls-private-key --tls-client-ca-certs --tls-verify-certificate --tls-sni-override "
    "--http-upgrade-credentials --restrict-config --http-headers --http-proxy -p --websocket-ping-frequency "
    "--connection-retry-max-backoff --dns-resolver-prefer-ipv4 --log-lvl",
    "chisel": "--host -p --tls-cert --tls-key --tls-ca --tls-skip-verify --fingerprint --hostname --auth --authfile "
    "--keepalive --max-retry-count --pid -v",
    "curl": "--url -E --cert --key --oauth2-bearer --resolve --proxy-user -U --retry --max-time -m -A -b -e -v -s "
    "--location --max-redirs --compressed",
    "ssh": "-w -o -f -p -i -b",
    "gunicorn": "-b --bind -c -D --daemon -p --ca-certs --forwarded-allow-ips --workers --threads",
    "etherws 1.3": "--host --sslcert --sslkey --cacerts --passwd --logconf --ageout",
}


@pytest.mark.parametrize("command", OPTIONS)
@pytest.mark.parametrize("program", ELSEWHERE)
def test_names_of_other_programs_have_hints(program: str, command: str) -> None:
    for name in ELSEWHERE[program].split():
        assert name in options_of(main.commands[command]) or option_hint(command, name), name


@pytest.mark.parametrize("word", COMMANDS)
def test_a_hint_names_a_command_that_exists(word: str) -> None:
    assert word not in main.commands
    found = re.findall(r"etherws(?: ([a-z-]+))?((?: -\S+)*)", COMMANDS[word])
    assert found
    for name, options in found:
        command = main.commands[name] if name and not name.startswith("-") else main
        assert set(OPTION.findall(options)) <= options_of(command) | {"--version"}


def test_an_option_of_another_command_is_said_to_be_one() -> None:
    assert option_hint("server", "--sni", ["client"]) == "--sni is an option of etherws client"
    assert option_hint("client", "--port", ["server"]) == (
        "--port is an option of etherws server; the port is a part of --uri ws://HOST:PORT/"
    )
    assert option_hint("demo", "--mtu", ["server", "client"]) == (
        "--mtu is an option of etherws server and etherws client"
    )
    assert option_hint("server", "--resolve") == (
        "no option --resolve; for etherws client, where to connect instead is given by --connect-to HOST:PORT"
    )
    assert option_hint("server", "--frobnicate") is None
    assert option_hint("demo", "--cert") is None


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("ws://192.0.2.1", "client --uri ws://192.0.2.1/"),
        ("wss://host/lan", "client --uri wss://host/lan"),
        ("https://alice:secret@host/", "client --uri wss://host/"),
        ("http://host", "client --uri ws://host/"),
        ("host.example", "client --uri ws://host.example/"),
        ("host:8080", "client --uri ws://host:8080/"),
        ("[2001:db8::1]:8080", "client --uri ws://[2001:db8::1]:8080/"),
        ("localhost", "client --uri ws://localhost/"),
        ("8080", "server --port 8080"),
    ],
)
def test_a_host_or_port_in_the_place_of_a_command(word: str, written: str) -> None:
    assert command_hint(word) == f"no command is named; write etherws {written}"


def test_a_word_that_nobody_knows_in_the_place_of_a_command() -> None:
    assert command_hint("frobnicate") is None
    assert command_hint("restart") == f"no command restart; {COMMANDS['restart']}"
    assert command_hint("-V") == "no option -V; the version is printed by etherws --version"
    assert command_hint("--cert") == (
        "no option --cert; options stand behind the command, as in etherws client --uri ws://HOST/"
    )


@pytest.mark.parametrize(
    ("command", "word", "words"),
    [
        ("client", "8080", "write --uri ws://HOST:8080/"),
        ("client", "ws://b/", "repeat --uri URI"),
        ("server", "8080", "write --port 8080"),
        ("server", "/lan", "--path PATH"),
        ("server", "ws://[::]:8080", "--address ADDRESS and --port PORT"),
        ("passwd", "secret", "the password is asked for"),
    ],
)
def test_an_argument_too_many(command: str, word: str, words: str) -> None:
    hint = argument_hint(command, word)
    assert hint is not None
    assert words in hint
    assert "secret" not in hint


def test_an_argument_too_many_of_another_command() -> None:
    assert argument_hint("demo", "x") is None
