"""``etherws check FILE`` for a configuration file: read it as the command would, then look at what it says.

The environment does not count: only the file is looked at. Read next: check/configuration.py, which looks;
config_option.py, which reads.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import click

from etherws.access import toml_lines
from etherws.access.policy_values import KEYS
from etherws.check.configuration import client, server
from etherws.check.findings import Finding, Verdict
from etherws.check.path.said import failed
from etherws.cli import config_option
from etherws.cli.way import way_of
from etherws.client.uris import split_uri
from etherws.config.configuration import SIZE_MAX, VERSION_KEY
from etherws.errors import EtherwsError, SettingsError, TomlError, printable
from etherws.file_names import is_credential
from etherws.settings import ClientSettings, Retry, ServerSettings
from etherws.small_files import read_file


def role_of(path: str, group: click.Group) -> str | None:
    """The command that a configuration is for, ``server`` or ``client``; None if the file is something else.

    The folder says it, as in /etc/etherws/server/, or else the keys.
    """
    folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
    by_folder = folder if folder in ("server", "client") and path.endswith(".toml") else None
    try:
        document = toml_lines.loads(read_file(path, SIZE_MAX + 1).decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, TomlError):
        return by_folder
    options = {name: config_option.keys(group.commands[name]) for name in ("server", "client")}
    if isinstance(document.get("server"), dict):
        # As in other programs' files. A configuration says that it has no tables.
        return by_folder or "server"
    known = options["server"] | options["client"]
    keys = {key for key, value in document.items() if key in known or not isinstance(value, dict)} - {VERSION_KEY}
    if "default" in document or keys & (KEYS.keys() - options["server"] - options["client"]):
        # A policy, perhaps without the line [default].
        return None
    if not keys and document and document.keys() <= {"default", "client"}:
        return None
    if not keys and VERSION_KEY not in document:
        return by_folder
    if by_folder:
        return by_folder
    # A client without it does not start.
    return "client" if "uri" in keys or len(keys & options["client"]) > len(keys & options["server"]) else "server"


def findings(path: str, role: str, ctx: click.Context) -> Iterator[Finding]:
    """What is wrong with the configuration, if anything."""
    try:
        made = config_option.read_file_as(role, path, ctx)
    except click.UsageError as exc:
        yield Finding("file", printable(exc.format_message()), Verdict.FAILED)
        return
    except EtherwsError as exc:
        yield failed("file", exc)
        return
    count = len(made.default_map or {})
    yield Finding("file", f"a configuration of etherws {role}: {count} option{'s' * (count != 1)}", data={"role": role})
    if (owner := os.stat(path).st_uid) not in (0, os.geteuid()):
        words = f"the file belongs to user {owner}, who decides by it what etherws does and runs"
        yield Finding("file", words, Verdict.WARNING, f"chown root {path}")
    try:
        yield from _looked_at(role, made.params)
    except SettingsError as exc:
        yield failed("file", config_option.placed(made, exc))


def _looked_at(role: str, values: dict[str, Any]) -> Iterator[Finding]:
    if role == "server":
        yield from server(ServerSettings(**_of(ServerSettings, values)), values)
        return
    uris = [split_uri(text) for text in values["uri"]]
    if not uris:
        yield Finding("uri", "no server is named", Verdict.FAILED, 'write uri = "wss://HOST/"')
    # What systemd passes later cannot be looked at.
    values["header"] = tuple(text for text in values["header"] if not is_credential(text.removeprefix("@")))
    if is_credential(values["pinnedpubkey"] or ""):
        values["pinnedpubkey"] = None
    settings = ClientSettings(**_of(ClientSettings, values))
    Retry(values["retry_interval"], values["max_retry_interval"], values["connect_timeout"])
    yield from client(settings, uris, way_of(values, (each for each, _, _ in uris)).trust, values)
    if uris:
        yield Finding("path", "the path to the server is not tried here", Verdict.NOTE, _command(values))


def _command(values: dict[str, Any]) -> str:
    """The command that tries the path, with the options of the file that say how. Secrets are left out."""
    words = ["etherws", "check", values["uri"][0].partition("?")[0]]
    if "@" in words[2]:
        words[2] = "URI"
    for name in ("connect_to", "cacert", "pinnedpubkey", "sni", "certfile", "keyfile", "token_file", "password_file"):
        if values[name]:
            words += [f"--{name.replace('_', '-')}", values[name]]
    words += [f"--{name}" for name in ("insecure", "ipv4", "ipv6") if values[name]]
    if values["user"]:
        words += ["--user", values["user"].partition(":")[0]]
    return shlex.join(words)


def _of(settings: Any, values: dict[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(settings) if field.name in values}
