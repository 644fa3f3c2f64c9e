"""The reference of the ``etherws`` command, as reStructuredText, made from the commands themselves.

A page for each command that ``--help`` lists: what it does, its options and its notes. docs/conf.py makes HTML of
them, and docs/manual.py manual pages. No start imports this. Read next: sections.py, what the pages are made of.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from etherws import __version__
from etherws.cli.commands import main
from etherws.cli.config_option import keys
from etherws.cli.sections import Command, Group

#: Characters that mean something in the text of reStructuredText.
_MARKS = re.compile(r"([\\*`|_])")


def command_pages() -> dict[str, str]:
    """The page of each command, by name: ``etherws``, ``etherws-server``, ``etherws-init-server``."""
    return {_name(ctx): _titled(ctx.command_path, "=") + body(ctx) for ctx in contexts()}


def manual_pages() -> dict[str, str]:
    """The manual page of each command, by file name, such as ``etherws-server.1``, for a writer of manual pages."""
    found = list(contexts())
    pages = {}
    for ctx in found:
        others = [_name(other) for other in found if other.parent is ctx or other is ctx.parent]
        others += [page for page, names in PAGES_OF_FILES.items() if _name(ctx) in names]
        pages[f"{_name(ctx)}.1"] = headed(_name(ctx), short(ctx.command), 1) + body(ctx) + see_also(others)
    return pages


#: The manual pages that are no command's, and those of commands that name them.
PAGES_OF_FILES = {
    "etherws.toml(5)": ("etherws", "etherws-server", "etherws-client", "etherws-init-server", "etherws-init-client"),
    "etherws-policy(5)": ("etherws", "etherws-server", "etherws-check"),
}


def contexts(command: click.Command = main, parent: click.Context | None = None) -> Iterator[click.Context]:
    """A context for each command that help lists, with its parents, in the order of the help."""
    ctx = click.Context(command, parent, info_name=command.name if parent else "etherws", **command.context_settings)
    yield ctx
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            if not command.commands[name].hidden:
                yield from contexts(command.commands[name], ctx)


def headed(name: str, summary: str, section: int) -> str:
    """The head of a manual page: its name, what it is about, and its section of the manual."""
    lines = [(name, "="), (text(summary.rstrip(".")), "-")]
    titles = [f"{mark * len(line)}\n{line}\n{mark * len(line)}\n\n" for line, mark in lines]
    return "".join(titles) + f":Manual section: {section}\n:Manual group: etherws\n:Version: etherws {__version__}\n\n"


def see_also(pages: list[str]) -> str:
    """The last part of a manual page; a name without a section is of section 1."""
    names = ", ".join(f"**{name.partition('(')[0]}**\\ ({name[-2] if '(' in name else 1})" for name in pages)
    return f"{_titled('See also', '-')}{names}\n"


def body(ctx: click.Context) -> str:
    """What stands below the title: how the command is called, what it does, its options, and its notes."""
    command = ctx.command
    pieces = "".join(f" {piece}" for piece in command.collect_usage_pieces(ctx))
    parts = [_titled("Synopsis", "-"), f"``{ctx.command_path}{pieces}``\n\n", _titled("Description", "-")]
    parts += [f"{text(paragraph)}\n\n" for paragraph in paragraphs(command)]
    if isinstance(command, click.Group):
        commands = [command.commands[name] for name in command.list_commands(ctx)]
        rows = [(f"{ctx.command_path} {each.name}", short(each)) for each in commands if not each.hidden]
        parts += [_titled("Commands", "-"), *(_defined(*row) for row in rows)]
    for heading, options in _sections(ctx).items():
        records = [option.get_help_record(ctx) for option in options]
        # Headings of one word, such as "Proxy", would say little in a page's table of contents.
        parts += [_titled(heading if heading.endswith("ptions") else f"Options: {heading}", "-")]
        parts += [_defined(*record) for record in records if record]
    if isinstance(command, Command | Group):
        for heading, note in command.notes.items():
            parts += [
                _titled(heading, "-"),
                "::\n\n",
                *(f"  {line}".rstrip() + "\n" for line in note.splitlines()),
                "\n",
            ]
    return "".join(parts)


def file_keys() -> str:
    """The keys of a configuration file: of a server, and of a client."""
    parts = []
    for ctx in contexts():
        names = keys(ctx.command) if ctx.command_path in ("etherws server", "etherws client") else set()
        if not names:
            continue
        parts += [_titled(f"Keys of {ctx.command.name}", "-")]
        for option in ctx.command.params:
            key = max(option.opts, key=len).removeprefix("--")
            record = option.get_help_record(ctx) if isinstance(option, click.Option) and key in names else None
            if record:
                flag = isinstance(option, click.Option) and option.is_flag
                parts += [_defined(f"{key} = {'true or false' if flag else option.make_metavar(ctx)}", record[1])]
    return "".join(parts)


def short(command: click.Command) -> str:
    """The first sentence of what a command does."""
    return paragraphs(command)[0].partition(". ")[0].rstrip(".") + "."


def paragraphs(command: click.Command) -> list[str]:
    """What a command does, by paragraphs, each in one line."""
    return [" ".join(part.split()) for part in inspect.cleandoc(command.help or "").split("\n\n")]


def text(words: str) -> str:
    """Words in which no character has a meaning, and a scheme such as ``http://`` is no link."""
    return _MARKS.sub(r"\\\1", words).replace("://", "\\://")


def _sections(ctx: click.Context) -> dict[str, list[click.Option]]:
    """The options by their headings, with --help and --version at the end."""
    named = getattr(ctx.command, "sections", {})
    found: dict[str, list[click.Option]] = {heading: list(options) for heading, options in named.items()}
    shown = [option for options in found.values() for option in options]
    rest = [each for each in ctx.command.get_params(ctx) if isinstance(each, click.Option) and each not in shown]
    if len(found) > 1 or not found:
        found["Options"] = rest
    else:
        next(iter(found.values())).extend(rest)
    return found


def _name(ctx: click.Context) -> str:
    return ctx.command_path.replace(" ", "-")


def _titled(title: str, line: str) -> str:
    return f"{title}\n{line * len(title)}\n\n"


def _defined(term: str, meaning: str) -> str:
    return f"``{term}``\n  {text(' '.join(meaning.split()))}\n\n"
