"""The README's commands: its literal blocks, with the names of the tests' machines in place of those in < >."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from etherws.cli.commands import main
from etherws.config import configuration

README = Path(__file__).resolve().parents[2] / "README.rst"

#: The addresses and names that stand for those in < >.
NAMES = {"<Hypervisor1's IP address>": "192.0.2.1", "<Hypervisor1's name>": "hypervisor1.example"}


@dataclass(frozen=True)
class Block:
    """A block of commands: the heading above it, the sentence before it, and the commands. The prompt is ``#`` for
    root, ``$`` for everybody."""

    heading: str
    before: str
    commands: tuple[str, ...]


def blocks(page: Path = README) -> list[Block]:
    """The blocks of README.rst, or of another page, that have commands, in order."""
    found: list[Block] = []
    heading = before = ""
    lines = page.read_text(encoding="utf-8").splitlines()
    literal: list[str] | None = None
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if literal is not None and line and not line.startswith(" "):
            _keep(found, heading, before, literal)
            literal = None
        if literal is not None:
            literal.append(line)
        elif line and re.fullmatch(r"([-=~])\1*", following) and len(following) >= len(line):
            heading = line
        elif line.endswith("::"):
            before, literal = line, []
        elif line:
            before = line
    if literal is not None:
        _keep(found, heading, before, literal)
    return found


def _keep(found: list[Block], heading: str, before: str, literal: list[str]) -> None:
    text = "\n".join(literal).replace("\\\n", "")
    for name, value in NAMES.items():
        text = text.replace(name, value)
    commands = re.findall(r"^ +[#$] (.*?)(?:  +# .*)?$", text, re.MULTILINE)
    if commands:
        found.append(Block(heading, before, tuple(" ".join(command.split()) for command in commands)))


def understand(line: str) -> None:
    """Read the arguments of an ``etherws`` command as a start would, and run nothing. Raises click.UsageError."""
    # Where the output goes is the shell's business.
    _, name, *arguments = (word for word in shlex.split(line) if not word.startswith(">"))
    # With the group's settings: without them, click would keep a --help that has no -h.
    context: click.Context = main.make_context("etherws", [name], resilient_parsing=True)
    command = main.commands[name]
    if isinstance(command, click.Group):
        context = command.make_context(name, arguments[:1], parent=context, resilient_parsing=True)
        name, command, arguments = arguments[0], command.commands[arguments[0]], arguments[1:]
    # A configuration that an example names is not there.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configuration, "load", lambda path: configuration.Configuration(path, b""))
        command.make_context(name, arguments, parent=context)
