"""What the doctor says of a file: what it is, and what is wrong with it. No secret is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.check.files import file
from etherws.check.findings import Finding, Verdict

BCRYPT = "$2b$04$Q0uUUMUDJLcVd2YWTEvUAO5Ha1JFRvCVXJ1G8ePUxYuHKwF4/I9Te"
TOKEN = "sha256:" + "0f" * 32


def looked_at(path: Path, content: str | bytes, *, open_to_all: bool = False) -> list[Finding]:
    """What is said of a file of this content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    os.chmod(path, 0o644 if open_to_all else 0o600)
    return list(file(str(path)))


@pytest.mark.parametrize(
    ("content", "verdict", "words"),
    [
        ('[client."alice"]\nmacs = 1\n', Verdict.OK, "1 connection at once, at most 1 MAC address"),
        ("# nobody\n[default]\nmtu = 3\n", Verdict.FAILED, ":3: mtu must be a number"),
        ("macs = 3\n", Verdict.FAILED, "macs is outside of the tables"),
        (f"alice:{BCRYPT}\nbob:{BCRYPT}\n", Verdict.OK, "a file of passwords for the server's --htpasswd: 2 clients"),
        (f"# tokens\na:{TOKEN}\n", Verdict.OK, "a file of tokens for the server's --token-file: 1 clients"),
        (f"a:{TOKEN}\nb:{TOKEN}\n", Verdict.FAILED, "this token has an entry already"),
        ("alice:$apr1$x$y\n", Verdict.FAILED, "$apr1$ (Apache's MD5) is not accepted"),
        ("alice:geheim\nbob:secret\n", Verdict.FAILED, "plain text or an unknown hash is not accepted"),
        ("s3cr3t-token-of-mine\n", Verdict.OK, "one line: a client's token or password"),
        ("", Verdict.WARNING, "has no entry"),
        ("# only\n\n# comments\n", Verdict.WARNING, "has no entry"),
        ('{"a": 1}', Verdict.FAILED, "it looks like JSON"),
        ("server {\n listen 80;\n}\n", Verdict.FAILED, "nginx's configuration"),
        ("defaults\n  mode http\n", Verdict.FAILED, "HAProxy's configuration"),
        ("[Unit]\nDescription=x\n", Verdict.FAILED, "a unit or a network of systemd"),
        ("ETHERWS_SERVER_PORT=443\n", Verdict.FAILED, "variables for a systemd unit"),
        (b"\x7fELF\2\1", Verdict.FAILED, "a binary file"),
        ("hello world, this is a letter\n", Verdict.FAILED, "nothing of it is known"),
        (b"\xff\xfe\n", Verdict.FAILED, "is not UTF-8"),
    ],
)
def test_each_kind(tmp_path: Path, content: str | bytes, verdict: Verdict, words: str) -> None:
    found = looked_at(tmp_path / "file", content)
    assert found[0].verdict is verdict
    assert words in found[0].found
    said = str(found).replace(str(tmp_path), "")
    for secret in ("geheim", "s3cr3t", BCRYPT):
        assert secret not in said


def test_a_policy_names_each_client(tmp_path: Path) -> None:
    found = looked_at(tmp_path / "file", '[client."a\\u001bb"]\nconnect = false\n')
    assert [(each.topic, each.verdict) for each in found] == [("a?b", Verdict.OK), ("everyone else", Verdict.OK)]
    assert looked_at(tmp_path / "file", "[default]\n")[0].topic == "everyone"


def test_a_policy_by_its_name_alone(tmp_path: Path) -> None:
    (found,) = looked_at(tmp_path / "policy.toml", "bridge br0\n")
    assert "policy.toml:1: " in found.found


def test_passwords_behind_a_long_comment(tmp_path: Path) -> None:
    (found,) = looked_at(tmp_path / "file", f"{'# x' * 30_000}\nalice:{BCRYPT}\n")
    assert found.data == {"kind": "passwords", "count": 1}


def test_rights(tmp_path: Path) -> None:
    first, second = looked_at(tmp_path / "file", f"a:{TOKEN}\n", open_to_all=True)
    assert (first.verdict, second.verdict, second.hint) == (Verdict.OK, Verdict.WARNING, "close it with chmod o-rw")
    assert "is open to everyone on this machine" in second.found
    (found,) = looked_at(tmp_path / "file", "s3cr3t-token\n", open_to_all=True)
    assert found.verdict is Verdict.FAILED
    assert found.hint.startswith("chmod o-rw ")


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, words in (
        (tmp_path, "is a folder"),
        (tmp_path / ("a" * 300), "File name too long"),
        (tmp_path / "none", "No such file or directory"),
        (tmp_path / "fifo", "it is not a regular file"),
    ):
        (found,) = file(str(path))
        assert found.verdict is Verdict.FAILED
        assert words in found.found


@given(st.binary(max_size=200))
def test_no_content_is_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    for each in file(str(path)):
        assert each.found.isprintable()
        assert each.topic.isprintable()


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"a:{TOKEN}\n")
    os.chmod(tmp_path / "tokens", 0o600)
    done = subprocess.run(
        [sys.executable, "-m", "etherws", "check", str(tmp_path / "tokens")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("OK      file          a file of tokens")
