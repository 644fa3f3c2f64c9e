"""``--config`` as users type it: what counts, and what each mistake says."""

from __future__ import annotations

import copy
import json
import logging
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from etherws import small_files
from etherws.cli import config_option
from etherws.cli.commands import main
from etherws.cli.file_options import FileName
from etherws.errors import ConfigError, EtherwsError, SettingsError


def options(role: str, *arguments: str, **environ: str) -> dict[str, Any]:
    """The options of a start."""
    group = main.make_context("etherws", [role], resilient_parsing=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        return main.commands[role].make_context(role, [*arguments], group).params


def refused(role: str, path: Path, *arguments: str) -> str:
    """What a start with this file says that does not come about by it."""
    with pytest.raises((EtherwsError, click.UsageError)) as caught:
        options(role, "--config", str(path), *arguments)
    return str(caught.value)


@pytest.fixture
def lan(tmp_path: Path) -> Path:
    """A configuration, with nothing as yet."""
    path = tmp_path / "lan.toml"
    path.write_text("#\n")
    return path


def test_option_variable_file_default(lan: Path) -> None:
    lan.write_text('port = 1\nbridge = "file"\npath = "/file"\ncheck = false\nmonitor = 9402\nresume-timeout = "1m"\n')
    found = options("server", "--config", str(lan), "--port", "3", ETHERWS_SERVER_PORT="2", ETHERWS_SERVER_BRIDGE="env")
    assert (found["port"], found["bridge"], found["path"], found["workers"]) == (3, "env", "/file", 1)
    assert (found["check"], found["monitor"], found["resume_timeout"]) == (False, "9402", 60.0)
    assert options("server", ETHERWS_SERVER_CONFIG=str(lan))["path"] == "/file"


def sample(option: click.Option, number: int) -> str:
    """A value for the option, another one for each number from 1 to 3."""
    kind = option.type
    if isinstance(kind, click.Choice):
        return str([each for each in kind.choices if each != option.default][number % (len(kind.choices) - 1)])
    if isinstance(kind, FileName):
        return f"{kind.prefix}/{number}"
    # Of two versions of the wire, one is the usual one.
    return {"wire": "1", "run_as": f"{number}:{number}", "hook_user": f"{number}:{number}"}.get(
        str(option.name), str(number + 1)
    )


@pytest.mark.parametrize("role", ["server", "client"])
def test_each_option_comes_before_its_variable_and_that_before_the_file(role: str, lan: Path) -> None:
    of_kind = {param.name: param for param in main.commands[role].params if isinstance(param, click.Option)}
    del of_kind["config"]

    def value(option: click.Option, number: int) -> Any:
        """The three places, from the file's on, say other things; of a switch they say no, yes, no."""
        if option.is_flag:
            return number == 2
        with click.Context(main.commands[role]) as ctx:
            found = option.type.convert(sample(option, number), option, ctx)
        return (found,) if option.multiple else found

    def found(*places: int, **environ: str) -> dict[str, Any]:
        """What counts if these places say something."""
        words = ["--config", str(lan)] if 1 in places else []
        if 3 in places:
            for option in of_kind.values():
                if not option.is_flag:
                    words.append(f"{max(option.opts, key=len)}={sample(option, 3)}")
                elif option.secondary_opts:
                    words.append(option.secondary_opts[0])
        for name, option in of_kind.items():
            if 2 in places:
                environ[f"ETHERWS_{role}_{name}".upper()] = "1" if option.is_flag else sample(option, 2)
        return options(role, *words, **environ)

    lan.write_text(
        "\n".join(
            f"{str(name).replace('_', '-')} = {'false' if option.is_flag else json.dumps(sample(option, 1))}"
            for name, option in of_kind.items()
        )
    )
    lan.chmod(0o600)
    empty = {f"ETHERWS_{role}_{name}".upper(): "" for name in of_kind}
    usual, by_file, by_variable, by_option = found(), found(1, **empty), found(1, 2), found(1, 2, 3)
    for name, option in of_kind.items():
        # A switch without a --no-... cannot be taken back on the command line.
        last = 3 if not option.is_flag or option.secondary_opts else 2
        expected = [value(option, 1), value(option, 2), value(option, last)]
        assert [each[str(name)] for each in (by_file, by_variable, by_option)] == expected, name
        assert usual[str(name)] != expected[0] or option.is_flag, name


def test_lists_and_the_names_of_files(lan: Path) -> None:
    (lan.parent / "key").touch(0o600)
    lan.write_text(
        'uri = ["wss://one/", "wss://two/"]\ndrop = "bpdu"\nheader = ["@headers", "A: b"]\nkeyfile = "key"\n'
        'certfile = "/etc/crt"\n'
        f'pinnedpubkey = "sha256//{"A" * 43}="\nstate-dir = ""\nwait = "forever"\nmax-age = 300.5\n'
    )
    lan.chmod(0o640)
    found = options("client", "--config", str(lan))
    assert found["uri"] == ("wss://one/", "wss://two/")
    assert (found["drop"], found["header"]) == (("bpdu",), (f"@{lan.parent}/headers", "A: b"))
    assert (found["keyfile"], found["certfile"], found["state_dir"]) == (str(lan.parent / "key"), "/etc/crt", "")
    assert (found["pinnedpubkey"], found["wait"], found["max_age"]) == (f"sha256//{'A' * 43}=", float("inf"), 300.5)


def test_a_file_that_may_be_missing(lan: Path) -> None:
    assert options("server", f"--config=-{lan}.gone")["config"] is None
    lan.write_text("port = 5")
    assert options("server", f"--config=-{lan}")["port"] == 5
    assert "etherws init makes one" in refused("server", lan.with_name("gone"))
    # Not to be seen is not to be missing.
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        options("server", f"--config=-{lan}/x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n  prot = 1", "lan.toml:2:3: unknown key 'prot'; is it port?"),
        ("token_file = 1", "unknown key 'token_file'; write token-file"),
        ("no-check = true", "unknown key 'no-check'; write check = false"),
        ('uri = "x"', "lan.toml:1:1: --uri is an option of etherws client"),
        ('dev = "tap0"', "lan.toml:1:1: no option --dev; the interface's name is given by --device NAME"),
        ('password = "x"', "a secret is in a file of its own: write it there, and name that by password-file"),
        ('config = "x"', "a configuration names no other one"),
        ("PORT = 1", "unknown key 'PORT'; is it port?"),
        ("zzzzzz = 1", "unknown key 'zzzzzz'; etherws server --help has all"),
        ('"a\\u001b\\n" = 1', "unknown key 'a\\x1b\\n'"),
        ("port = 99999", "lan.toml:1:8: port: 99999 is not in the range 0 to 65535"),
        ("port = true", "lan.toml:1:8: port is a text or a number; write it in quotes"),
        ("port = [1]", "port has one value, and no list"),
        ("trusted-proxy = [[1]]", "trusted-proxy has one value, and no list"),
        ("keyfile = 5", "keyfile is the name of a file; write it in quotes"),
        ("bridge = 07:32:00", "bridge is a text or a number; write it in quotes"),
        ("check = 1", "check is a switch; write true or false, without quotes"),
        ('ping-interval = "soon"', "lan.toml:1:17: ping-interval: 'soon' is not a duration"),
        ('run-as = "no such user"', "lan.toml:1:10: run-as: this machine has no user"),
        ('token-file = "credential:x"', "lan.toml:1:14: --token-file credential:x: systemd passes no credential"),
        ('token-file = "credential:../x"', "names no credential; write credential:NAME"),
    ],
)
def test_a_mistake_has_its_place_and_its_mend(text: str, words: str, lan: Path) -> None:
    lan.write_text(text)
    said = refused("server", lan)
    assert words in said
    assert said.isprintable()


def test_what_the_settings_refuse_has_its_place(lan: Path) -> None:
    lan.write_text("port = 8080\nmtu = 3\n")
    done = CliRunner().invoke(main, ["server", "--config", str(lan)])
    assert (done.exit_code, done.output) == (2, f"Error: {lan}:2:7: --mtu 3 is out of range; choose 68 to 65521\n")
    done = CliRunner().invoke(main, ["server", "--config", str(lan), "--mtu", "4"])
    assert (done.exit_code, done.output) == (1, "Error: --mtu 4 is out of range; choose 68 to 65521\n")
    lan.write_text('token-file = "gone"\n')
    done = CliRunner().invoke(main, ["server", "--config", str(lan)])
    assert (done.exit_code, str(lan.parent / "gone") in done.output) == (1, True)
    done = CliRunner().invoke(main, ["server", "--path", "x"])
    assert (done.exit_code, "--path 'x' is not a path" in done.output) == (1, True)


@pytest.mark.parametrize(
    "text",
    [
        'user = "alice:secret"',
        'uri = ["wss://a/", "wss://alice:secret@b/"]',
        'uri = "wss://a/?secret"',
        'proxy = "http://alice:secret@proxy/"',
        'proxy = "alice:secret@proxy:3128"',
        'header = "Cookie: secret"',
    ],
)
def test_a_secret_that_others_can_read_is_refused(text: str, lan: Path) -> None:
    lan.write_text(text)
    said = refused("client", lan)
    assert (
        f"lan.toml:1:{text.index('=') + 3}: every user of this machine can read this secret; chmod o-rw {lan}" in said
    )
    assert "secret@" not in said
    assert "alice" not in said
    lan.chmod(0o640)
    options("client", "--config", str(lan))


@pytest.mark.parametrize(
    ("role", "text"),
    [
        ("client", 'token-file = "secret"'),
        ("client", 'password-file = "secret"'),
        ("client", 'header = ["A: b", "@secret"]'),
        ("server", 'keyfile = "secret"'),
        ("server", 'monitor-token-file = "secret"'),
    ],
)
def test_a_file_of_a_secret_that_others_can_read_is_refused(role: str, text: str, lan: Path) -> None:
    secret = lan.with_name("secret")
    secret.touch(0o644)
    lan.write_text(text)
    lan.chmod(0o640)
    assert f"every user of this machine can read or change {secret}; chmod o-rw {secret}" in refused(role, lan)
    secret.chmod(0o640)
    options(role, "--config", str(lan))


def test_a_secret_of_a_container_that_others_can_read_is_refused(lan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As podman and docker mount it, if they are told no mode.
    secret = "/run/secrets/token"
    monkeypatch.setattr(small_files, "is_open_to_all", lambda path: path == secret)
    lan.write_text(f'token-file = "{secret}"')
    assert f"every user of this machine can read or change {secret}; mount it with mode=0400" in refused("client", lan)


def test_a_server_named_on_the_command_line_comes_before_the_file(lan: Path) -> None:
    lan.write_text('uri = "wss://one/"\ncacert = "gone"')
    done = CliRunner().invoke(main, ["client", "--config", str(lan), "wss://two/"])
    assert "--cacert" in done.output
    assert "name the server once" not in done.output


def test_a_reload_says_if_the_file_has_changed(lan: Path, caplog: pytest.LogCaptureFixture) -> None:
    lan.write_text("port = 5")
    group = main.make_context("etherws", ["server"], resilient_parsing=True)
    calls: list[object] = []
    caplog.set_level(logging.INFO, "etherws")
    with main.commands["server"].make_context("server", ["--config", str(lan)], group):
        reload = config_option.reloading(lambda read_again: calls.append(read_again()))
    reload(lambda: "read")
    assert (calls, caplog.messages) == (["read"], [])
    lan.write_text("port = 6")
    reload(lambda: "read")
    assert re.fullmatch(f"{lan} has changed: that counts after a restart, or after SIGUSR2 .*", caplog.messages[0])
    lan.write_text("port = ")
    reload(lambda: "read")
    assert caplog.messages[1].startswith(f"the configuration could not be used at a restart: {lan}:1:8: ")
    group = main.make_context("etherws", ["server"], resilient_parsing=True)
    with main.commands["server"].make_context("server", [], group):
        config_option.reloading(lambda read_again: calls.append(read_again()))(lambda: "read")
    assert (len(calls), len(caplog.messages)) == (4, 2)


def test_each_option_can_stand_in_a_file() -> None:
    for role in ("server", "client"):
        names = {str(param.name).replace("_", "-") for param in main.commands[role].params}
        assert config_option.keys(main.commands[role]) == names - {"config", "positional"}


def test_errors_without_a_file_stay_as_they_are() -> None:
    with click.Context(main.commands["server"], help_option_names=main.context_settings["help_option_names"]) as ctx:
        error = SettingsError("--mtu 3")
        assert config_option.placed(ctx, error) is error


def test_a_command_still_has_its_help_after_a_file_was_read_for_it(lan: Path) -> None:
    # click keeps the help option that it makes first.
    command = copy.copy(main.commands["server"])
    command._help_option = None
    group = click.Group("etherws", {"server": command}, context_settings=main.context_settings)
    with group.make_context("etherws", ["server"], resilient_parsing=True) as ctx:
        config_option.read_file_as("server", str(lan), ctx)
    assert CliRunner().invoke(group, ["server", "-h"]).exit_code == 0
