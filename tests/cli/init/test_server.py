"""``etherws init server``: what it writes, and what it refuses."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from etherws.access.credential_files import Tokens
from etherws.cli.commands import main
from etherws.cli.init import common, server
from etherws.config.invitation import Invitation, parse
from tests.lab.pki import Authority, Certificate


@pytest.fixture(autouse=True)
def no_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own units are not touched."""
    monkeypatch.setattr("etherws.cli.init.units.reload", lambda *_: None)


def typed(folder: Path, *arguments: str, **options: Any) -> Any:
    """What ``etherws init server`` comes to."""
    return CliRunner().invoke(main, ["init", "server", "--config-dir", str(folder), *arguments], **options)


def invited(folder: Path, *arguments: str) -> Invitation:
    """The invitation that it prints."""
    done = typed(folder, *arguments)
    assert done.exit_code == 0, done.output
    return parse(done.stdout, time.time())


def files(folder: Path) -> dict[str, int]:
    """The files of a folder, and their modes."""
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


def test_a_set_up_and_one_more_client(tmp_path: Path) -> None:
    folder = tmp_path / "etherws" / "server"
    first = invited(folder, "--host", "host.example", "--client", "branch1", "--bridge", "br0")
    assert (first.uri, first.name, first.client) == ("wss://host.example:443/", "lan", "branch1")
    assert files(folder) == {"lan.toml": 0o640, "lan.key": 0o600, "lan.crt": 0o644, "lan.tokens": 0o600}
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    second = invited(folder, "--client", "branch2")
    assert (second.uri, second.pin) == (first.uri, first.pin)
    assert {path.name for path in folder.iterdir() if path.read_bytes() != before[path.name]} == {"lan.tokens"}
    tokens = Tokens.load(folder / "lan.tokens")
    assert [tokens.name_of(each.token) for each in (first, second)] == ["branch1", "branch2"]
    done = typed(folder, "--client", "branch1")
    assert (done.exit_code, "branch1 has a token already; --renew makes a new one" in done.output) == (1, True)
    third = invited(folder, "--client", "branch1", "--renew", "--host", "other.example:8443")
    tokens = Tokens.load(folder / "lan.tokens")
    assert [tokens.name_of(each.token) for each in (first, second, third)] == [None, "branch2", "branch1"]
    assert third.uri == "wss://other.example:8443/"
    # It can be used as it stands.
    assert "0 failed" not in CliRunner().invoke(main, ["check", str(folder / "lan.toml")]).output


@pytest.mark.parametrize(
    ("host", "port", "uri", "listens"),
    [
        ("192.0.2.1", (), "wss://192.0.2.1:443/", 443),
        ("2001:db8::1", (), "wss://[2001:db8::1]:443/", 443),
        ("[2001:db8::1]:8443", (), "wss://[2001:db8::1]:8443/", 8443),
        ("host.example:8443", ("--port", "443"), "wss://host.example:8443/", 443),
        ("host.example", ("--port", "8443"), "wss://host.example:8443/", 8443),
    ],
)
def test_where_it_is_reached(host: str, port: tuple[str, ...], uri: str, listens: int, tmp_path: Path) -> None:
    assert invited(tmp_path, "--host", host, *port).uri == uri
    assert f"\nport = {listens}\n" in (tmp_path / "lan.toml").read_text()


def test_files_that_are_there_already(tmp_path: Path, authority: Authority, certificate: Certificate) -> None:
    def using(name: str, pair: Certificate) -> Invitation:
        pair.key.chmod(0o600)
        given = ["--certfile", str(pair.cert), "--keyfile", str(pair.key)]
        return invited(tmp_path, name, "--host", "localhost", *given)

    # Each renewal may bring another key, but the authority stays.
    signed = authority.issue()
    assert using("signed", signed).pin == ""
    pair = ["--certfile", str(signed.cert), "--keyfile", str(signed.key)]
    done = typed(tmp_path, "other", "--host", "other.example", *pair)
    assert "clients would refuse it for other.example; see --host" in done.output
    # A mistake that a start would find is found here.
    signed.key.chmod(0o644)
    done = typed(tmp_path, "other", "--host", "localhost", *pair)
    assert (done.exit_code, f"chmod o-rw {signed.key}" in done.output, done.stdout) == (2, True, "")
    assert [name for name in files(tmp_path) if name.startswith("other")] == []
    assert using("own", certificate).pin.startswith("sha256//")
    assert f'certfile = "{certificate.cert}"' in (tmp_path / "own.toml").read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "name the server as clients reach it: --host HOST"),
        (["--host", "a b"], 1, "--host 'a b' is no name and no address"),
        (["--host", "h/path"], 1, "is no name and no address"),
        (["--host", "u@h"], 1, "is no name and no address"),
        (["--host", "h?x"], 1, "is no name and no address"),
        (["--host", "h" * 300], 1, f"--host '{'h' * 64}' is no name"),
        (["--host", "fe80::1%eth0"], 1, "an address that no other machine can connect to"),
        (["--host", "0.0.0.0"], 1, "an address that no other machine can connect to"),
        (["--host", "h:99999"], 1, "is no name and no address"),
        (["--host", "h", "--port", "0"], 2, "0 is not in the range 1 to 65535"),
        (["--host", "h", "--certfile", "x"], 2, "--certfile and --keyfile belong together"),
        (["--host", "h", "--certfile", "/gone", "--keyfile", "/gone"], 1, "cannot read"),
        (["--host", "h", "--client", "a:b"], 1, "--client"),
        (["--host", "h", "--bridge", "a/b"], 1, "--bridge 'a/b' is not a valid interface name"),
        (["../lan", "--host", "h"], 2, "'../lan' is no name for a set-up"),
        (["--host", "h", "--enable"], 1, "--enable needs systemd"),
        (["--host", "h", "--out", "/gone/x"], 1, "cannot write --out /gone/x"),
    ],
)
def test_what_is_refused_leaves_nothing(
    arguments: list[str], status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isdir = os.path.isdir
    monkeypatch.setattr(
        "etherws.cli.init.units.os.path.isdir", lambda path: path != "/run/systemd/system" and isdir(path)
    )
    done = typed(tmp_path, *arguments)
    assert (done.exit_code, words in " ".join(done.output.split())) == (status, True), done.output
    assert [*tmp_path.iterdir()] == []


def test_a_set_up_that_is_there_is_changed_by_hand(tmp_path: Path) -> None:
    invited(tmp_path, "--host", "h")
    done = typed(tmp_path, "--port", "8443", "--client", "x")
    assert (done.exit_code, "is there already: change it there, without --port" in done.output) == (1, True)
    (tmp_path / "lan.toml").write_text("port = 80")
    done = typed(tmp_path, "--client", "x")
    assert (done.exit_code, "has no certfile, keyfile or token-file" in done.output) == (1, True)
    (tmp_path / "lan.toml").write_text("port = ")
    done = typed(tmp_path, "--client", "x")
    assert (done.exit_code, "lan.toml:1:8: " in done.output) == (2, True)


def test_what_cannot_be_delivered_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "line"
    typed(tmp_path / "server", "--host", "h", "--out", str(out))
    assert parse(out.read_text(), time.time()).client == "client1"
    assert out.stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "server" / "lan.tokens").read_bytes()
    done = typed(tmp_path / "server", "--client", "x", "--out", str(out))
    assert "exists already; name a new file" in done.output
    assert (tmp_path / "server" / "lan.tokens").read_bytes() == before


def test_a_folder_of_others_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = typed(tmp_path / "file", "--host", "h")
    assert (done.exit_code, "cannot write" in done.output) == (1, True)
    assert "etherws-invitation" not in done.output


def test_it_asks_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"Name or address": "host.example", "Bridge": "", "Name of the client": "branch1"}

    def answer(question: str, default: str | None = None) -> str | None:
        return next(text for begin, text in answers.items() if question.startswith(begin)) or None

    monkeypatch.setattr(server, "ask", answer)
    found = invited(tmp_path)
    assert (found.uri, found.client) == ("wss://host.example:443/", "branch1")
    # Who names the host is asked for what is needed alone.
    del answers["Bridge"]
    assert invited(tmp_path, "other", "--host", "h").client == "branch1"
    assert common.ask("without a terminal") is None
    assert server._own_address() is None or "." in str(server._own_address())


def test_it_needs_no_rights_of_root(tmp_path: Path) -> None:
    assert os.access(tmp_path, os.W_OK)
    assert invited(tmp_path, "--host", "h").name == "lan"
