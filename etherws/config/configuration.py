"""A configuration file: read it, and say where in it a mistake is.

Pure: it knows no option. A configuration is TOML, keys without tables: each has the name of an option without its
dashes. Who reads one says which keys there are: cli/config_option.py for the commands, server_settings.py for gunicorn.
The file's reference is docs/configuration.rst.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Mapping
from typing import Any

from etherws.access import toml_lines
from etherws.errors import ConfigError, EtherwsError, SettingsError, TomlError, printable
from etherws.file_names import is_credential
from etherws.small_files import changeable_by_all, read_file

#: Bytes of a configuration: far more than all options take, and parsed in a moment.
SIZE_MAX = 256 << 10

#: The key for the version of a file's form, and the version that this reads.
VERSION_KEY, VERSION = "version", 1

#: How the message of an error begins that is about an option: with its name, or with what could not be done with it.
_ABOUT = re.compile(r"(cannot (?:read|use|load) )?--([a-z0-9-]+)\b")


class Configuration:
    """What is in one file. `values` has the keys as they are in the file, without the version's; `path` is the file."""

    def __init__(self, path: str, raw: bytes) -> None:
        """`raw` is the file's content. Raises ConfigError."""
        self.path, self._raw = path, raw
        if len(raw) > SIZE_MAX:
            raise ConfigError(f"{path} is larger than {SIZE_MAX >> 10} KiB; is it the right file?")
        try:
            # "-sig": some editors write a byte order mark at the beginning.
            self._text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            # Counted from behind the mark, and the column in characters, as an editor does.
            before = exc.object[: exc.start].decode()
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
            raise ConfigError(f"{path}:{line}:{column}: not UTF-8; save the file in that encoding") from exc
        try:
            self.values: Mapping[str, Any] = self._checked(toml_lines.loads(self._text))
        except TomlError as exc:
            reason = str(exc).replace(f" at column {exc.column};", ";")
            raise ConfigError(f"{path}:{exc.line}:{exc.column or 1}: {reason}") from None

    def mistake(self, key: str, words: str, *, value: bool = False) -> ConfigError:
        """The error for a key, or for its value: with its place."""
        line, column = toml_lines.place_of(self._text, key, value=value)
        return ConfigError(f"{self.path}:{line}:{column}: {words}")

    def placed(self, error: EtherwsError, names: Container[str]) -> EtherwsError:
        """The error, with its place if it is about a key of this file. `names` are those of the options whose values
        are from this file, with _ for the dashes."""
        found = _ABOUT.match(str(error))
        if not isinstance(error, SettingsError) or not found or found[2] not in self.values:
            return error
        if found[2].replace("-", "_") not in names:
            return error
        placed = self.mistake(found[2], str(error), value=True)
        # What cannot be read now may be there later: then the error has the status that it had.
        return SettingsError(str(placed)) if found[1] else placed

    def changed(self) -> bool:
        """Whether the file has another content now. Raises ConfigError, also if it could not be used any more."""
        raw = _read(self.path)
        if raw != self._raw:
            Configuration(self.path, raw)
        return raw != self._raw

    def join(self, name: str) -> str:
        """A file's name, which is relative to this file's folder; what names a credential of systemd's, or nothing, as
        it is."""
        if not name or is_credential(name):
            return name
        return os.path.join(os.path.dirname(self.path), name)

    def _checked(self, document: dict[str, Any]) -> dict[str, Any]:
        """Without the version. Raises ConfigError."""
        for key, value in document.items():
            self._check_form(key, value)
        version = document.get(VERSION_KEY, VERSION)
        if version is True or version != VERSION:
            what = printable(repr(version))
            if isinstance(version, int) and version > VERSION:
                hint = f"this etherws knows version {VERSION}: use the etherws that the file was written for"
            else:
                hint = f"write {VERSION_KEY} = {VERSION}, or leave it out"
            raise self.mistake(VERSION_KEY, f"the file is of version {what}; {hint}", value=True)
        for key, value in document.items():
            if not isinstance(value, dict) and not (
                isinstance(value, list) and any(isinstance(v, dict) for v in value)
            ):
                continue
            if key in ("default", "client") and set(document) <= {"default", "client"}:
                raise self.mistake(key, 'this is a policy, and no configuration; name it in one by policy = "FILE"')
            raise self.mistake(key, f"{printable(repr(key))} is a table; a configuration has none: leave out its line")
        return {key: value for key, value in document.items() if key != VERSION_KEY}

    def _check_form(self, key: str, value: Any) -> None:
        """Raise ConfigError for what no option can have, and Python's own functions do not take: a number that is not
        of 64 bits (TOML 1.0, "Integer"), and a text with a zero byte."""
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            self._check_form(key, each)
        if isinstance(value, int) and not -1 << 63 <= value < 1 << 63:
            words = f"{printable(key)} is a number of more than 64 bits; choose a smaller one"
            raise self.mistake(key, words, value=True)
        if isinstance(value, str) and "\0" in value:
            raise self.mistake(key, f"{printable(key)} has a zero byte in it; leave out \\u0000", value=True)


def load(path: str) -> Configuration:
    """The configuration in the file of this absolute name. Raises ConfigError."""
    raw = _read(path)
    # Root has checked the file itself, before it made the copy that was read.
    if open_ := changeable_by_all(path):
        raise ConfigError(f"{path} can be changed by every user of this machine; chmod o-w {open_}")
    return Configuration(path, raw)


def _read(path: str) -> bytes:
    if os.path.isdir(path):
        raise ConfigError(f"{path} is a folder; name a file in it, such as {os.path.join(path, 'lan.toml')}")
    try:
        raw = read_file(path, SIZE_MAX + 1)
    except OSError as exc:
        hint = "etherws init makes one" if isinstance(exc, FileNotFoundError) else "check who may read it"
        raise ConfigError(f"cannot read the configuration {path}: {exc.strerror or exc}; {hint}") from exc
    if not raw.strip():
        # A server without a configuration lets everybody in.
        raise ConfigError(f"{path} is empty; was it written to its end? A comment makes it a configuration of nothing")
    return raw
