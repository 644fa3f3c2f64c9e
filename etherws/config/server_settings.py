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


#: Fields of ServerSettings that a user sets.
_NAMES = [field.name for field in fields(ServerSettings) if field.name not in ("link", "hook_user")]


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
    if name not in _NAMES or "_" in key:
        raise configuration.mistake(key, unknown("key", key, [each.replace("_", "-") for each in _NAMES]))
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
    if isinstance(value, str | int | float):
        return str(int(value) if isinstance(value, bool) else value)
    raise configuration.mistake(key, f"{key} is neither a text, a number, true nor false", value=True)
