"""The settings of a server in gunicorn: of a configuration file that the environment names, and of the environment.

Pure. ETHERWS_SERVER_CONFIG names the file. It may have only what is etherws's own there: where to listen, TLS and
processes are gunicorn's. Read next: settings.py, which has the settings; configuration.py; wsgi.py, which asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from etherws.access.policy_values import unknown
from etherws.config.configuration import Configuration, load
from etherws.errors import SettingsError
from etherws.file_names import FILE_OPTIONS, absolute
from etherws.settings import PARSERS, ServerSettings
from etherws.small_files import open_secret

#: The variable that names the file.
VARIABLE = "ETHERWS_SERVER_CONFIG"

#: Options of etherws server that are gunicorn's own there, and what its command line calls them.
_GUNICORN: Mapping[str, str] = {
    "address": "--bind",
    "port": "--bind",
    "certfile": "--certfile",
    "keyfile": "--keyfile",
    "client-ca": "--ca-certs and --cert-reqs 2",
    "workers": "--workers",
    "run-as": "--user and --group",
    "hook-user": "--user and --group",
    "pidfile": "--pid",
    "log-level": "--log-level",
    "debug": "--log-level",
    "log-format": "--logger-class",
    "foreground": "--daemon",
}


#: Fields of ServerSettings that a user sets, with their usual values.
_USUAL = {field.name: field.default for field in fields(ServerSettings) if field.name not in ("link", "hook_user")}


def from_environ(environ: Mapping[str, str]) -> ServerSettings:
    """The settings in the environment: ETHERWS_SERVER_DEVICE, _BRIDGE and so on, one for each field, and those of the
    file. A variable comes before the file; an empty one counts as unset. Raises SettingsError."""
    path = environ.get(VARIABLE)
    if not path:
        return ServerSettings.from_environ(environ)
    configuration = load(absolute(VARIABLE, path))
    given = {key.replace("-", "_"): _value(configuration, key, value) for key, value in configuration.values.items()}
    try:
        return ServerSettings.from_environ(environ, given)
    except SettingsError as exc:
        names = {name for name in given if not environ.get(f"ETHERWS_SERVER_{name.upper()}")}
        raise configuration.placed(exc, names) from None


def _value(configuration: Configuration, key: str, value: Any) -> Any:
    """A key's value as the field of ServerSettings has it. Raises ConfigError."""
    if key in _GUNICORN:
        words = f"{key} is gunicorn's own here: leave it out, and give gunicorn {_GUNICORN[key]}"
        raise configuration.mistake(key, words)
    name = key.replace("-", "_")
    if name not in _USUAL or "_" in key:
        raise configuration.mistake(key, unknown("key", key, [each.replace("_", "-") for each in _USUAL]))
    if isinstance(_USUAL[name], bool):
        if isinstance(value, bool):
            return value
        raise configuration.mistake(key, f"{key} is a switch; write true or false, without quotes", value=True)
    # As on a command line: to take an empty list for nothing would be to let everybody in by it.
    if isinstance(value, list) and not isinstance(_USUAL[name], tuple):
        raise configuration.mistake(key, f"{key} has one value, and no list", value=True)
    texts = [_text(configuration, key, each) for each in (value if isinstance(value, list) else [value])]
    if name in FILE_OPTIONS:
        texts = [*map(configuration.join, texts)]
    # Of the files with secrets as they are, only this one is not gunicorn's own.
    if name == "monitor_token_file" and (words := next(filter(None, map(open_secret, texts)), "")):
        raise configuration.mistake(key, f"{key}: {words}", value=True)
    try:
        return PARSERS[name](f"--{key}", " ".join(texts)) if name in PARSERS else " ".join(texts)
    except SettingsError as exc:
        raise configuration.mistake(key, str(exc), value=True) from None


def _text(configuration: Configuration, key: str, value: Any) -> str:
    """A value as the environment has it."""
    is_name = key.replace("-", "_") in FILE_OPTIONS
    if isinstance(value, bool) or not isinstance(value, str if is_name else str | int | float):
        words = f"{key} is {'the name of a file' if is_name else 'a text or a number'}; write it in quotes"
        raise configuration.mistake(key, words, value=True)
    return str(value)
