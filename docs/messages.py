"""The page of all messages, from the sources: `make docs` writes it to ``docs/commands/messages.rst``.

A message is the text of a call that logs, or of an error that is raised; what is put into it stands there as ``...``.
Texts that are put together of several parts are found by one of their parts. conf.py calls this.
docs/troubleshooting.rst says what to do.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ETHERWS = Path(__file__).resolve().parents[1] / "etherws"

#: Calls that log, and the level of each. ``log`` is of logging and of LogLimit, and has the level as an argument.
LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}

#: What a user of the commands does not meet: tests of the wire and of kept state catch these themselves.
INTERNAL = {"ValueError", "TypeError", "AttributeError", "KeyError", "OSError", "TimeoutError", "ChildProcessError"}

#: Rooms whose words are no messages: what `etherws check` finds, and the demo.
LEFT_OUT = ("check/", "cli/demo")

#: Fewer words than this are a status or a name.
WORDS_MIN = 2


#: Begins the page.
HEAD = """\
Messages
========

What etherws logs, prints as an error, or answers to a client, in the order of the alphabet. ``...`` stands for what is
put in: a name, an address, a reason. If you do not find yours, search for another part of it: some are put together of
several. :doc:`/troubleshooting` says of the usual ones what they mean and what to do; the others say it themselves.

.. list-table::
   :header-rows: 1
   :widths: 10 90

   * - level
     - message"""


class Message(NamedTuple):
    """A text, and the level at which it is logged; an error that is raised has the level error."""

    text: str
    level: str


@cache
def messages() -> list[Message]:
    """All messages, by their texts."""
    found = set()
    for path in sorted(ETHERWS.rglob("*.py")):
        name = path.relative_to(ETHERWS).as_posix()
        if not name.startswith(LEFT_OUT):
            found |= set(_said(ast.parse(path.read_text(encoding="utf-8"))))
    return sorted(found, key=lambda message: (re.sub(r"\W", "", message.text).lower(), message))


def _said(tree: ast.Module) -> Iterator[Message]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            call, level = node.exc, "" if ast.unparse(node.exc.func) in INTERNAL else "error"
        elif isinstance(node, ast.Call):
            call, level = node, _level(node)
        else:
            continue
        for argument in call.args if level else ():
            text = re.sub(r"(\.\.\.)+", "...", " ".join(_text(argument).split()))
            # The status of an answer by HTTP is no message.
            if len(re.findall(r"[A-Za-z]{2,}", text)) >= WORDS_MIN and not re.match(r"\d{3} ", text):
                yield Message(text, level)


def _level(call: ast.Call) -> str:
    """The level of a call that logs; empty if it does not log."""
    called = call.func
    if not isinstance(called, ast.Attribute) or called.attr not in LEVELS:
        return ""
    if "log" not in ast.unparse(called.value).lower():
        return ""
    if called.attr == "log":
        return next((word.lower() for word in re.findall(r"logging\.([A-Z]+)", ast.unparse(call))), "info")
    return "error" if called.attr == "exception" else called.attr


def _text(node: ast.expr) -> str:
    """The text of an argument, with ... for what is put into it; empty if there is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[-+ #.\d]*[sdrfgx]", "...", node.value).replace("%%", "%")
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "..." for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        return _text(node.left) + (_text(node.right) if isinstance(node.op, ast.Add) else "")
    return ""


def page() -> str:
    """The page, as reStructuredText."""
    lines = [HEAD]
    for message in messages():
        lines += [f"   * - {message.level}", f"     - ``{message.text}``"]
    return "\n".join(lines) + "\n"
