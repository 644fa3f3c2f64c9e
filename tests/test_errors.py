"""The tree of errors: its drawing is complete and true, and all errors are in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import etherws
from etherws import errors
from etherws.errors import ConnectionClosed, EtherwsError, ProtocolError, Refused, TomlError, printable, some_of

CLASSES = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, EtherwsError)
}


def drawn() -> dict[str, str]:
    """Each class of the drawing in the docstring, and the class that it is drawn below."""
    parents: dict[str, str] = {}
    above: list[str] = ["EtherwsError"]
    for indent, name, text in re.findall(r"^ {4}([| ]*)\+-- (\w+) {2,}(\S.*)$", errors.__doc__ or "", re.MULTILINE):
        depth = len(indent) // 4 + 1
        del above[depth:]
        assert name not in parents, f"{name} is drawn twice"
        assert text
        parents[name] = above[-1]
        above.append(name)
    return parents


def test_the_drawing_shows_every_error_below_its_parent() -> None:
    assert drawn() == {name: value.__mro__[1].__name__ for name, value in CLASSES.items() if value is not EtherwsError}
    assert "\n    EtherwsError\n" in (errors.__doc__ or "")


def test_no_other_module_defines_an_error_of_the_tree() -> None:
    for path in Path(etherws.__file__).parent.rglob("*.py"):
        if path.name == "errors.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                assert not bases & CLASSES.keys(), f"{path}: {node.name}"


def test_errors_carry_what_others_need() -> None:
    assert ProtocolError(1002, "x").code == 1002
    assert (ConnectionClosed("x").code, ConnectionClosed("x", 1001).code) == (None, 1001)
    assert TomlError(7, "x").line == 7
    refused = Refused("400 Bad Request", "x", iter([("A", "b")]))
    assert (refused.status, str(refused), refused.headers) == ("400 Bad Request", "x", [("A", "b")])
    assert Refused("400 Bad Request", "x").headers == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a b", "a b"), ("a\nb\x1b[2J\u2028", "a?b?[2J?"), ("\udcff", "?"), ("x" * 300, "x" * 200)],
)
def test_a_strangers_text_is_made_printable(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_some_of_many_names_are_shown() -> None:
    assert some_of((), 2) == ""
    assert some_of(["a", "b"], 2) == "a, b"
    assert some_of(["a", "b", "c", "d"], 2) == "a, b and 2 more"
