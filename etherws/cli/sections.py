"""A command whose ``--help`` shows its options under headings, then examples and the environment's names.

It adds nothing to how options are read: that is click's. Read next: options.py, the options under their headings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

#: Options by the heading that ``--help`` shows above them, in order.
Sections = Mapping[str, Sequence[click.Option]]


class Command(click.Command):
    """A command with options under headings. ``--help`` itself is the last one under the last heading."""

    def __init__(
        self, *, sections: Sections, notes: Mapping[str, str], params: Sequence[click.Parameter], **attributes: Any
    ) -> None:
        """`params` are arguments; the options come from `sections`. `notes` are texts to end the help with, by
        heading: their lines are shown as they are."""
        options = [option for section in sections.values() for option in section]
        super().__init__(params=[*params, *options], **attributes)
        self.sections, self.notes = sections, notes

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
        for heading, text in self.notes.items():
            with formatter.section(heading):
                formatter.write("".join(f"  {line}\n" for line in text.splitlines()))
