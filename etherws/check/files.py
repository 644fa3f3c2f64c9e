"""``etherws check FILE``: what a file is, and whether etherws can use it.

Policies, files of passwords and tokens, certificates and keys. What kind a file is shows its content, not its name. No
secret of a file is shown. Read next: access/policy.py and access/credential_files.py, which read the files;
certificate_files.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from etherws.access import policy
from etherws.access.credential_files import FILE_MAX, Passwords, Tokens, read_lines
from etherws.check import certificate_files
from etherws.check.findings import Finding, Verdict
from etherws.errors import EtherwsError, printable
from etherws.small_files import is_open_to_all, read_file

#: Bytes that show what kind a file is.
_BEGIN = 64 * 1024

#: Entries of the two kinds of files: bcrypt and what other programs write, and tokens.
_PASSWORD = re.compile(rb"^[^:\s#\[=][^:\n]*:(\$|\{[A-Z0-9]+\}|[./A-Za-z0-9]{13}\r?$)", re.MULTILINE)
_TOKEN = re.compile(rb"^[^:\s#\[=][^:\n]*:sha256:", re.MULTILINE)

#: What somebody may have meant as passwords: each line a name, a colon, and something.
_ENTRY = re.compile(r"[^:\s]+:\S*")

#: A table or a key of TOML at the beginning of a line.
_TOML = re.compile(rb"^[ \t]*(\[[^\n]*\]|[\w.\"'-]+\s*=)", re.MULTILINE)

#: What a client's own file holds: one line without blanks, a token or password.
_SECRET = re.compile(rb"[!-~]{8,512}\r?\n?")

_KINDS = "a configuration, a policy, passwords, tokens, a certificate or a private key"

#: Files of other programs, by what they begin with or hold: the words for each.
_OTHERS = (
    (rb"\A(version https://git-lfs|#!)", "a script, or a pointer to a file"),
    (rb"\A\s*[{\[]\s*[\"{\]}]", "JSON"),
    (rb"^[ \t]*(http|server|upstream|stream)\s*\{", "nginx's configuration"),
    (rb"^(global|defaults|frontend|backend)\b", "HAProxy's configuration"),
    (rb"^\[(Unit|Service|Match|Network)\]", "a unit or a network of systemd"),
    (rb"^(export )?ETHERWS_[A-Z_]+=", "variables for a systemd unit (EnvironmentFile=)"),
    (rb"\A(PK\x03\x04|\x1f\x8b|\x7fELF|%PDF)", "a binary file"),
)


def file(path: str) -> Iterator[Finding]:
    """What the file at `path` is, and what is wrong with it. No error ends it."""
    shown = printable(path)
    if os.path.isdir(path):
        yield Finding("file", f"{shown} is a folder", Verdict.FAILED, f"name a file: {_KINDS}", {"kind": "folder"})
        return
    try:
        begin = read_file(path, _BEGIN)
    except OSError as exc:
        words = f"cannot read {shown}: {exc.strerror or exc}"
        yield Finding("file", words, Verdict.FAILED, "check the path, and who may read it", {"kind": None})
        return
    try:
        yield from _by_kind(path, shown, begin)
    except EtherwsError as exc:
        yield Finding("file", str(exc), Verdict.FAILED, "", {"path": shown})


def _by_kind(path: str, shown: str, begin: bytes) -> Iterator[Finding]:
    if path.endswith(".toml"):
        yield from _policy(path)
    elif b"-----BEGIN " in begin or certificate_files.is_der(begin):
        yield from certificate_files.look(path, read_file(path, FILE_MAX))
    elif _TOKEN.search(begin):
        tokens = Tokens.load(path)
        yield from _credentials("tokens", "--token-file", len(tokens), tokens.warnings)
    elif _PASSWORD.search(begin):
        yield from _passwords(path)
    elif other := next((name for pattern, name in _OTHERS if re.search(pattern, begin, re.MULTILINE)), ""):
        yield _unknown(shown, f"it looks like {other}")
    elif _TOML.search(begin):
        yield from _policy(path)
    elif _SECRET.fullmatch(begin):
        yield from _secret(path, shown)
    else:
        yield from _by_lines(path, shown)


def _by_lines(path: str, shown: str) -> Iterator[Finding]:
    lines = [line.rstrip() for line in read_lines(path)[0]]
    entries = [line for line in lines if line and not line.startswith("#")]
    if not entries:
        # A policy without a line is one.
        words = f"{shown} has no entry: as a policy the defaults hold; as passwords or tokens nobody may join"
        yield Finding("file", words, Verdict.WARNING, "see docs/policy.rst, or etherws passwd", {"kind": "empty"})
        return
    if all(map(_ENTRY.fullmatch, entries)):
        # Most likely they are refused, with the reason.
        yield from _passwords(path)
    else:
        yield _unknown(shown, "nothing of it is known")


def _unknown(shown: str, words: str) -> Finding:
    hint = f"etherws check FILE knows {_KINDS}"
    return Finding("file", f"{shown} is nothing that etherws reads: {words}", Verdict.FAILED, hint, {"kind": "other"})


def _policy(path: str) -> Iterator[Finding]:
    loaded = policy.load(path)
    for name, profile in loaded.clients.items():
        yield Finding(printable(name), profile.summary(), data={"kind": "policy", "client": name})
    everyone = f"everyone{' else' if loaded.clients else ''}"
    yield Finding(everyone, loaded.default.summary(), data={"kind": "policy", "client": None})


def _passwords(path: str) -> Iterator[Finding]:
    passwords = Passwords.load(path)
    yield from _credentials("passwords", "--htpasswd", len(passwords), passwords.warnings)


def _credentials(kind: str, option: str, count: int, warnings: list[str]) -> Iterator[Finding]:
    data = {"kind": kind, "count": count}
    yield Finding("file", f"a file of {kind} for the server's {option}: {count} clients may join by it", data=data)
    for warning in warnings:
        words, _, hint = warning.rpartition("; ")
        yield Finding("file", words, Verdict.WARNING, hint, {"kind": kind})


def _secret(path: str, shown: str) -> Iterator[Finding]:
    data = {"kind": "secret", "open": is_open_to_all(path)}
    words = "one line: a client's token or password (--token-file, --password-file); a server needs its hash instead"
    if data["open"]:
        yield Finding("file", f"{words}; everyone can read it", Verdict.FAILED, f"chmod o-rw {shown}", data)
    else:
        yield Finding("file", words, data=data)
