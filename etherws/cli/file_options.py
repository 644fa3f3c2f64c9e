"""Types of options whose value is, or may be, the name of a file: it becomes absolute (file_names.py).

Whether the file can be used is found by who reads it. options.py uses these types, and no other one for a file.
"""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from etherws.errors import SettingsError
from etherws.file_names import CREDENTIAL, PASSED_LATER, absolute

#: In a context's meta: options are only looked at, where systemd passes no credentials (config_check.py).
WITHOUT_CREDENTIALS = "etherws.without-credentials"


class FileName(click.ParamType[str]):
    """A file or folder."""

    name = "file"
    #: What stands before a file's name. A value without it is no file.
    prefix = ""
    #: Whether etherws reads the file, and perhaps again while it runs.
    is_read = True

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The value with the absolute name."""
        text = str(value)
        if not self.is_file(text):
            return text
        if ctx and ctx.meta.get(WITHOUT_CREDENTIALS):
            text = text.replace(self.prefix + CREDENTIAL, self.prefix + PASSED_LATER, 1)
        option = param.opts[-1] if param else ""
        try:
            return self.prefix + absolute(option, text.removeprefix(self.prefix))
        except SettingsError as exc:
            self.fail(str(exc), param, ctx)

    def is_file(self, text: str) -> bool:
        """Whether the value names a file."""
        return text.startswith(self.prefix)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Have the shell complete names of files, where no prefix stands before them."""
        return [] if self.prefix else [CompletionItem(incomplete, type="file")]


class WrittenFile(FileName):
    """A file that etherws writes."""

    is_read = False


class Program(FileName):
    """A program that etherws starts."""

    name = "program"
    is_read = False


class Pins(FileName):
    """Pins of public keys, or a file with a key."""

    name = "pins"

    def is_file(self, text: str) -> bool:
        """Whether the value names a file."""
        return not text.startswith("sha256//")


class Header(FileName):
    """An HTTP header, ``Name: value``, or ``@FILE``."""

    name = "header"
    prefix = "@"
    #: A variable of the environment can have several headers, one on each line.
    envvar_list_splitter = "\n"


class Address(FileName):
    """A host's address or name, ``unix:FILE``, or ``unix:@NAME``, which is no file."""

    name = "address"
    prefix = "unix:"
    is_read = False

    def is_file(self, text: str) -> bool:
        """Whether the value names a file."""
        return super().is_file(text) and not text.startswith("unix:@")


def files_read(ctx: click.Context | None = None) -> list[str]:
    """The absolute names of the files that this command reads, by its options; of the present command without `ctx`."""
    ctx = ctx or click.get_current_context()
    found = []
    for param in ctx.command.params:
        kind, value = param.type, ctx.params.get(param.name or "")
        if isinstance(kind, FileName) and kind.is_read:
            texts = value if isinstance(value, tuple) else (value,)
            found += [text.removeprefix(kind.prefix) for text in texts if text and kind.is_file(text)]
    return found
