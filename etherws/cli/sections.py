"""Commands with options under headings, examples, and errors that know what people type by habit.

It changes nothing in what is accepted, but for one thing: ``-user`` is refused, which click would read as ``-u ser``.
Read next: options.py, the options under their headings; habits.py, the names that people type by habit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from etherws.cli import habits

#: Options by the heading that ``--help`` shows above them, in order.
Sections = Mapping[str, Sequence[click.Option]]


def option(*names: str, help: str, **attributes: Any) -> click.Option:
    """An option. Its help ends with its default: click adds the one that it knows, `help` has any other in brackets."""
    return click.Option(names, help=help, show_default=True, **attributes)


def flag(*names: str, help: str) -> click.Option:
    """A switch, as option()."""
    return option(*names, help=help, is_flag=True)


class Command(click.Command):
    """A command with options under headings. ``--help`` itself is the last one under the last heading."""

    def __init__(
        self,
        *,
        sections: Sections,
        params: Sequence[click.Parameter],
        notes: Mapping[str, str] | None = None,
        **attributes: Any,
    ) -> None:
        """`params` are arguments; the options come from `sections`. `notes` are texts to end the help with, by
        heading: their lines are shown as they are."""
        options = [option for section in sections.values() for option in section]
        super().__init__(params=[*params, *options], **attributes)
        self.sections, self.notes = sections, notes or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, each section under its heading."""
        last = [*self.sections][-1]
        for heading, options in self.sections.items():
            records = [option.get_help_record(ctx) for option in options]
            if heading == last and (help_option := self.get_help_option(ctx)):
                records.append(help_option.get_help_record(ctx))
            with formatter.section(heading):
                # Longer names have a line of their own, so that most of a line of 80 columns is left for the text.
                formatter.write_dl([record for record in records if record], col_max=26)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the notes."""
        _write_notes(formatter, self.notes)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does. Raises click.UsageError with a hint where one is known."""
        extra = None
        try:
            self._check_dashes(ctx, args)
            # With an argument too many, click says no more than that.
            ctx.allow_extra_args = True
            super().parse_args(ctx, args)
            extra = next(iter(ctx.args), None)
        except click.NoSuchOption as exc:
            if hint := self._option_hint(ctx, exc.option_name):
                raise click.UsageError(hint, ctx) from None
            raise
        if extra is not None and not ctx.resilient_parsing:
            hint = habits.argument_hint(str(self.name), extra)
            raise click.UsageError(hint or "there is an argument too many", ctx)
        return ctx.args

    def _check_dashes(self, ctx: click.Context, args: Sequence[str]) -> None:
        """Raise NoSuchOption for a long name with one dash."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        take_a_value = {name for option in options if not option.is_flag for name in option.opts}
        known = {name for option in options for name in option.opts}
        for before, word in zip(["", *args], args, strict=False):
            if word == "--":
                break
            name = "-" + word.partition("=")[0]
            if word[:1] == "-" != word[1:2] and len(name) > 3 and before not in take_a_value:
                if name in known:
                    raise click.UsageError(f"no option {name[1:]}; write {name}, with two dashes", ctx)
                if self._option_hint(ctx, name):
                    raise click.NoSuchOption(name, ctx=ctx)

    def _option_hint(self, ctx: click.Context, name: str) -> str | None:
        group = ctx.parent.command if ctx.parent else None
        others = _with_option(group, name) if isinstance(group, click.Group) else []
        return habits.option_hint(str(self.name), name, others)


class Group(click.Group):
    """A group of commands, shown in the order in which they were added, with notes as those of Command."""

    def __init__(self, *, notes: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(**attributes)
        self.notes = notes

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return list(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, then the options."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the notes."""
        _write_notes(formatter, self.notes)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does. Raises click.UsageError with a hint for an option that stands before its command."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:
            if others := _with_option(self, exc.option_name):
                hint = f"{habits.option_hint('', exc.option_name, others)}; write it behind the command"
            else:
                hint = habits.command_hint(exc.option_name) or exc.format_message()
            raise click.UsageError(hint, ctx) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does. Raises click.UsageError with a hint where one is known."""
        if args[0] not in self.commands and (hint := habits.command_hint(args[0])):
            raise click.UsageError(hint, ctx)
        return super().resolve_command(ctx, args)


def _with_option(group: click.Group, name: str) -> list[str]:
    """The names of the commands that have an option of this name."""
    return [
        str(command.name)
        for command in group.commands.values()
        if any(name in (*param.opts, *param.secondary_opts) for param in command.params)
    ]


def _write_notes(formatter: click.HelpFormatter, notes: Mapping[str, str]) -> None:
    for heading, text in notes.items():
        with formatter.section(heading):
            formatter.write("".join(f"  {line}\n" for line in text.splitlines()))
