"""The archive as a whole: secrets are planted everywhere, and looked for in all members, in every form."""

from __future__ import annotations

import base64
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

from etherws.bundle import archive, log_lines, processes
from etherws.bundle.archive import MEMBER_MAX, TOTAL_MAX, Gathered, Instance, Member, members, write
from etherws.bundle.redaction import Redactor
from etherws.errors import SettingsError
from tests.lab.passwords import hashed

SECRETS = ["Hunter2-hunter2", "geheim/er+Token?", "S3cr3tHeader", "proxyPa55", "uRiPa55word", "query-t0ken"]
NAMES = ["alice-of-branch1", "relay.example.com", "dora lopez"]
ADDRESSES = ["8.8.4.4", "2600:1f18::77", "02:de:ad:be:ef:01"]


def forms(secret: str) -> Iterator[str]:
    """The secret as it is, and encoded."""
    raw = secret.encode()
    yield from (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], raw.hex())
    # Its middle, which is the same whatever stands before it.
    yield from (base64.b64encode(b"\0" * offset + raw).decode()[4:-4] for offset in range(3))


def decoded(text: str) -> Iterator[str]:
    """The text, and what its words are if they are base64 or parts of URIs."""
    yield text
    yield unquote(text)
    for word in text.replace('"', " ").split():
        try:
            yield base64.b64decode(word + "=" * (-len(word) % 4), validate=True).decode("latin-1")
        except ValueError:
            continue


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Instance], dict[str, str]]:
    """A server and a client that have all these secrets and names, wherever they may be."""
    password, token, header, proxy, in_uri, query = SECRETS
    alice, relay, dora = NAMES
    ip4, _, mac = ADDRESSES
    (tmp_path / "token").write_text(f"{token}\n")
    (tmp_path / "htpasswd").write_text(f"{alice}:{hashed(password)}\n{dora}:{hashed(password)}\n")
    os.chmod(tmp_path / "token", 0o644)
    (tmp_path / "policy.toml").write_text(
        f'# {password} of {dora}\n[client."{alice}"]\nmacs = ["{mac}"]\naddresses = ["{ip4}", "10.0.0.1"]\n'
    )
    environ = {
        "ETHERWS_CLIENT_TOKEN_FILE": str(tmp_path / "token"),
        "ETHERWS_CLIENT_URI": f"wss://x:{in_uri}@{relay}:8443/lab?t={query}",
        "ETHERWS_CLIENT_HEADER": f"X-Thing: {header}",
        "ETHERWS_CLIENT_PASSWORD": password,
        "ETHERWS_SERVER_POLICY": str(tmp_path / "policy.toml"),
        "ETHERWS_SERVER_HTPASSWD": str(tmp_path / "htpasswd"),
        "https_proxy": f"http://u:{proxy}@{relay}:3128",
        "PATH": os.environ["PATH"],
    }
    basic = base64.b64encode(f"x:{password}".encode()).decode()
    everything = f"{' '.join([*SECRETS, *NAMES, *ADDRESSES])} Basic {basic} {quote(token)} fe80::de:adff:febe:ef01"
    status = {
        "role": "server",
        "sessions": [{"identity": alice, "address": ip4, "macs": [mac], "proxy": f"http://u:{proxy}@{relay}/"}],
        "link": {"server": f"wss://{relay}:8443/", "last_error": everything},
        "refusals": {everything: 1},
    }
    events = {"events": [{"kind": "refused", "identity": dora, "text": everything}], "next": 7}

    def get(path: str) -> Any:
        if path == "/status":
            return status
        return events

    def hang(path: str) -> Any:
        raise TimeoutError(f"timed out; {everything}")

    monkeypatch.setattr(log_lines, "log_lines", lambda: f"etherws: {everything}\nAuthorization: Basic {basic}\n")
    found = processes.Process(0, (), {name: value for name, value in environ.items() if name != "PATH"})
    command = (
        "etherws",
        "client",
        f"wss://x:{in_uri}@{relay}/?t={query}",
        "-u",
        f"{alice}:{password}",
        "-H",
        f"A: {header}",
    )
    monkeypatch.setattr(processes, "processes", lambda own: [found, processes.Process(os.getpid(), command, {})])
    return [Instance("server-lan", get), Instance("client-\x1b/../x", hang)], environ


@pytest.mark.parametrize("addresses", [False, True])
def test_no_secret_is_in_any_member(
    planted: tuple[list[Instance], dict[str, str]], tmp_path: Path, addresses: bool
) -> None:
    instances, environ = planted
    path = tmp_path / "b.tar.gz"
    redactor = Redactor(addresses=addresses)
    size = write(str(path), members(instances, redactor, environ=environ, notes=[SECRETS[0]]), "bundle")
    assert size == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    texts = {}
    with tarfile.open(path) as found:
        for member in found.getmembers():
            assert (member.uid, member.gid, member.uname, member.mode) == (0, 0, "", 0o600)
            assert member.name.startswith("bundle/")
            assert ".." not in member.name
            file = found.extractfile(member)
            assert file is not None
            texts[member.name.removeprefix("bundle/")] = file.read().decode()
    assert {
        "contents.txt",
        "server-lan/status.json",
        "server-lan/events.json",
        "policy.json",
        "log.txt",
    } <= texts.keys()
    for name, text in texts.items():
        for form in decoded(text):
            for secret in SECRETS:
                assert not any(each in form for each in forms(secret)), (name, secret)
            if not addresses:
                assert not any(each in form for each in (*NAMES, *ADDRESSES, "de:adff:febe:ef01")), name
        if name.endswith(".json"):
            json.loads(text)
    everywhere = " ".join(texts.values())
    if addresses:
        assert all(each in everywhere for each in (*NAMES, *ADDRESSES))
    else:
        policy, status = (json.loads(texts[name]) for name in ("policy.json", "server-lan/status.json"))
        assert status["sessions"][0]["identity"] == policy[0]["clients"][0]["client"]
        assert status["sessions"][0]["macs"] == policy[0]["clients"][0]["macs"]
        assert "10.0.0.1/32" in policy[0]["clients"][0]["addresses"]
    assert "left out" in texts["client-_____x/status.json"]
    assert all(name in texts["contents.txt"] for name in texts if name != "contents.txt")


def test_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "processes", lambda own: [processes.Process(0, (), {})])
    made = {member.name: member for member in members([], Redactor(), environ={})}
    assert json.loads(made["check.json"].data)
    assert json.loads(made["processes.json"].data)[0]["limits"]


def test_the_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, *([archive.TIME_MAX + 1] * 100)])
    made = members([], Redactor(), environ={}, clock=lambda: next(now))
    assert all(b"were over" in member.data for member in made[1:])


def test_the_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "TOTAL_MAX", 100)
    made = members([], Redactor(), environ={})
    assert made[-1].data == b'{"left out": "the bundle would be too large"}\n'
    assert TOTAL_MAX > MEMBER_MAX
    monkeypatch.setattr(archive, "MEMBER_MAX", 10)
    data = archive._encoded(Gathered("x", "", "y" * 100), Redactor())
    assert data == b"y" * 10 + b"\n(the rest was left out)\n"


def test_what_holds_a_secret_all_the_same_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    redactor = Redactor()
    redactor.secret("hunter2")
    monkeypatch.setattr(redactor, "text", lambda text: text)
    assert archive._encoded(Gathered("x", "", "hunter2"), redactor) == b'{"left out": "a secret was found in it"}\n'


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    path.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for there in (path, tmp_path / "link"):
        with pytest.raises(SettingsError, match="exists already"):
            write(str(there), [], "x")
    assert path.read_text() == "mine"
    with pytest.raises(SettingsError, match="cannot write"):
        write(str(tmp_path / "none" / "b"), [], "x")


def test_half_an_archive_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, raised in (
        (OSError(28, "No space left on device"), SettingsError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):

        def fail(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(tarfile.TarFile, "addfile", fail)
        with pytest.raises(raised):
            write(str(tmp_path / "b"), [Member("x", "", b"")], "y")
        assert not (tmp_path / "b").exists()
