"""The option ``--config``: a configuration file, whose values are click's defaults for the other options.

So an option comes before its variable, that before the file, and the file before the usual value. Each value of the
file is tried at once: a mistake has its line and column. Read next: config/configuration.py, which reads the file;
options.py, which has the options that it may set.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from etherws.cli import habits, sections
from etherws.cli.file_options import WITHOUT_CREDENTIALS, FileName
from etherws.client.credentials import password_in_url, split_user
from etherws.errors import ConfigError, EtherwsError, SettingsError, printable
from etherws.file_names import is_credential, to_read
from etherws.small_files import is_open_to_all, open_secret

if TYPE_CHECKING:
    from etherws.config.configuration import Configuration

log = logging.getLogger("etherws")

#: Where the context of a command has the Configuration.
_META = "etherws.configuration"

#: In a context's meta: there is a configuration, and its values do not count, since it has a mistake.
UNUSABLE = "etherws.configuration-unusable"

#: Options whose files hold a secret as it is: a password, a token, a private key.
_SECRET_FILES = {"password_file", "keyfile", "monitor_token_file", "header"}


class ConfigFile(FileName):
    """A configuration file. With ``-`` before its name it may be missing, as in a unit of systemd."""

    name = "configuration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The absolute name; None if the file may be missing, and is."""
        text = str(value)
        optional = len(text) > 1 and text.startswith("-")
        path = super().convert(text[1:] if optional else text, param, ctx)
        return None if optional and _is_missing(path) else path


def _is_missing(path: str) -> bool:
    try:
        os.lstat(to_read(path))
    except FileNotFoundError:
        return True
    except OSError:
        # It may be there, where this user does not see it: a start without it would let everybody in.
        pass
    return False


def config_option() -> click.Option:
    """The option. It is read before the others."""
    return click.Option(
        ["--config"],
        type=ConfigFile(),
        metavar="FILE",
        help="Read options from this TOML file: keys are their names. The command line and variables come before it."
        "  [default: none]",
        is_eager=True,
        callback=_read,
    )


class Command(sections.Command):
    """A command with ``--config``: an error about a value says where in the file that stands."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except SettingsError as exc:
            error = placed(ctx, exc)
            raise error from (exc if error is not exc else exc.__cause__)


def read_file_as(name: str, path: str, ctx: click.Context) -> click.Context:
    """The context of the command of this name, with the values of the file alone: no variable counts, and credentials
    of systemd's are not there yet. Raises ConfigError, and click.UsageError."""
    root = ctx.find_root()
    group = root.command
    assert isinstance(group, click.Group)
    # click keeps the help option that a command made first, with the names of that context.
    parent = click.Context(group, info_name="etherws", help_option_names=root.help_option_names)
    parent.meta[WITHOUT_CREDENTIALS] = True
    with group.commands[name].make_context(name, ["--config", path], parent) as made:
        return made


def placed(ctx: click.Context, error: EtherwsError) -> EtherwsError:
    """The error, with the place in the configuration if it is about a value of that."""
    found: Configuration | None = ctx.meta.get(_META)
    of_file = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.DEFAULT_MAP}
    return found.placed(error, of_file) if found else error


def keys(command: click.Command) -> set[str]:
    """The keys that a configuration of this command may have."""
    return set(_options(command))


def reloading(reload: Callable[[Callable[[], object]], object]) -> Callable[[Callable[[], object]], None]:
    """`reload`, which also says in the log if the configuration has changed: a reload does not make that count."""
    found: Configuration | None = click.get_current_context().meta.get(_META)

    def reload_and_look(read_again: Callable[[], object]) -> None:
        reload(read_again)
        if found is None:
            return
        try:
            if found.changed():
                log.warning(
                    "%s has changed: that counts after a restart, or after SIGUSR2 (kill -USR2 %d); etherws check %s"
                    " says what is wrong with it",
                    found.path,
                    os.getpid(),
                    found.path,
                )
        except ConfigError as exc:
            log.error("the configuration could not be used at a restart: %s", exc)

    return reload_and_look


def _read(ctx: click.Context, _: click.Parameter, path: str | None) -> str | None:
    """Make the file's values the defaults of this command. Raises ConfigError."""
    if not path:
        return path
    # Most starts have no file.
    from etherws.config.configuration import load

    try:
        found = ctx.meta[_META] = load(path)
        ctx.default_map = {**(ctx.default_map or {}), **values(ctx, found)}
    except ConfigError:
        # etherws stage only copies the file; the command itself tells of mistakes.
        if not ctx.resilient_parsing:
            raise
        ctx.meta[UNUSABLE] = True
    return path


def values(ctx: click.Context, found: Configuration) -> Mapping[str, Any]:
    """What the file says, by the names of the command's parameters. Raises ConfigError."""
    result = dict(_values(ctx, found))
    if is_open_to_all(found.path) and (key := next(filter(lambda key: _is_secret(key, result[key]), result), None)):
        key = key.replace("_", "-")
        hint = f"chmod o-rw {found.path}, or put the secret into a file of its own"
        raise found.mistake(key, f"every user of this machine can read this secret; {hint}", value=True)
    return result


def secret_files(role: str, params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The names of the options and of the files that hold secrets as they are."""
    for name in (*sorted(_SECRET_FILES), *(("token_file",) if role == "client" else ())):
        value = params.get(name)
        for text in value if isinstance(value, tuple) else (value,):
            if text and (name != "header" or text.startswith("@")) and not is_credential(text):
                yield name, text.removeprefix("@") if name == "header" else text


def _is_secret(name: str, value: Any) -> bool:
    """Whether there is, or may be, a secret in the value of this option."""
    texts = [str(each) for each in (value if isinstance(value, tuple) else (value,))]
    if name == "user":
        return any(split_user(text)[1] for text in texts)
    if name in ("uri", "proxy"):
        return any(password_in_url(text) or "?" in text for text in texts)
    return name == "header" and any(not text.startswith("@") for text in texts)


def _values(ctx: click.Context, found: Configuration) -> Iterator[tuple[str, Any]]:
    options = _options(ctx.command)
    for key, value in found.values.items():
        if key not in options:
            raise found.mistake(key, _unknown(ctx, key, options))
        option = options[key]
        assert option.name
        given = _given(found, key, option, value)
        try:
            converted = option.type_cast_value(ctx, given)
        except click.BadParameter as exc:
            words = printable(exc.message)
            raise found.mistake(key, words if words.startswith("--") else f"{key}: {words}", value=True) from None
        for _, path in secret_files(str(ctx.command.name), {option.name: converted}):
            if words := open_secret(path):
                raise found.mistake(key, f"{key}: {words}", value=True)
        yield option.name, given


def _options(command: click.Command) -> dict[str, click.Option]:
    """The options that a configuration may set, by their keys."""
    found = {_key(param): param for param in command.params if isinstance(param, click.Option)}
    return {key: option for key, option in found.items() if key != "config"}


def _given(found: Configuration, key: str, option: click.Option, value: Any) -> Any:
    """The value in the form in which click takes it from a command line. Raises ConfigError."""
    if option.is_flag:
        if isinstance(value, bool):
            return value
        raise found.mistake(key, f"{key} is a switch; write true or false, without quotes", value=True)
    if isinstance(value, list) and option.multiple:
        return tuple(_text(found, key, option, each) for each in value)
    text = _text(found, key, option, value)
    return (text,) if option.multiple else text


def _text(found: Configuration, key: str, option: click.Option, value: Any) -> str:
    """A value as a text; the name of a file counts from the configuration's folder. Raises ConfigError."""
    kind = option.type
    is_name = isinstance(kind, FileName)
    if isinstance(value, list):
        raise found.mistake(key, f"{key} has one value, and no list", value=True)
    if isinstance(value, bool) or not isinstance(value, str if is_name else str | int | float):
        words = f"{key} is {'the name of a file' if is_name else 'a text or a number'}; write it in quotes"
        raise found.mistake(key, words, value=True)
    text = str(value)
    if isinstance(kind, FileName) and kind.is_file(text):
        return kind.prefix + found.join(text.removeprefix(kind.prefix))
    return text


def _key(option: click.Option) -> str:
    """The option's name in a file."""
    return max(option.opts, key=len).removeprefix("--")


def _unknown(ctx: click.Context, key: str, known: Mapping[str, click.Option]) -> str:
    """What to write in place of a key that is no option's name."""
    if key == "config":
        return "a configuration names no other one; leave it out"
    switch = known.get(key.removeprefix("no-"))
    if switch is not None and switch.is_flag:
        return f"unknown key {printable(repr(key))}; write {_key(switch)} = false"
    if key.replace("_", "-") in known:
        return f"unknown key {printable(repr(key))}; write {key.replace('_', '-')}"
    if key in ("password", "token"):
        return f"a secret is in a file of its own: write it there, and name that by {key}-file"
    group = ctx.find_root().command
    others = [
        str(other.name)
        for other in (group.commands.values() if isinstance(group, click.Group) else ())
        if other.name in ("server", "client") and other is not ctx.command and key in _options(other)
    ]
    if hint := habits.option_hint(str(ctx.command.name), f"--{key}", others):
        return hint
    from etherws.access.policy_values import unknown

    words = unknown("key", key, known)
    return (
        words if len(words) < 200 else f"unknown key {printable(repr(key))}; etherws {ctx.command.name} --help has all"
    )
