"""TOML with lines: where a mistake is, and where a key was defined. tests/access/test_policy.py has many more."""

from __future__ import annotations

import runpy
import sys
import types
from typing import Any

import pytest

from etherws.access import toml_lines
from etherws.access.toml_lines import line_of, loads
from etherws.errors import TomlError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", {}), ("a = 1", {"a": 1}), ("[t]\r\na = '''\r\nx'''\r\n", {"t": {"a": "x"}}), ("# x", {})],
)
def test_toml_is_read(text: str, expected: dict[str, Any]) -> None:
    assert loads(text) == expected


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a = 1\nb = \n", 2, "Invalid value at column 5"),
        ("a = 1\nb = [\n1,\n\n2", 2, "; put texts in quotes"),
        ("a = 1\n\nb = '''\n[c]\n", 3, "; put texts in quotes"),
        ("[a]\nb = [\n1\n]\nb = [\n", 5, "; put texts in quotes"),
        (f"a = 1\nb = {'9' * 5000}", 2, "a value is too long or too deeply nested"),
        (f"a = 1\nb = {'[' * 5000}{']' * 5000}", 2, "a value is too long or too deeply nested"),
        ("a = 1\r\n\x00", 2, "at column 1"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_mistake_has_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(TomlError) as caught:
        loads(text)
    assert caught.value.line == line
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_search_for_a_line_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toml_lines, "SEARCH_MAX", 20)
    with pytest.raises(TomlError) as caught:
        loads("a = 1\nb = '''\n" + "x = [1]\n" * 10)
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("path", "line"),
    [(("a",), 1), (("t",), 5), (("t", "b"), 6), (("t", "c", "d"), 8), (("t", "c"), 8), (("u",), 9)],
)
def test_the_line_of_a_key(path: tuple[str, ...], line: int) -> None:
    text = "a = [\n1, # ]\n\n]\n[t]\nb = '''\n'''\nc.d = 1\n[u]\n"
    assert line_of(text, path) == line


@pytest.mark.parametrize(("version", "library"), [((3, 10), "tomli"), ((3, 11), "tomllib")])
def test_the_parser_is_pythons_own_where_it_has_one(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], library: str
) -> None:
    parser = types.ModuleType(library)
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setitem(sys.modules, library, parser)
    assert runpy.run_path(toml_lines.__file__)["tomllib"] is parser


@pytest.mark.parametrize(
    ("key", "place", "value"),
    [("a", (1, 1), (1, 5)), ("b c", (2, 3), (2, 12)), ("d", (4, 2), (4, 4)), ("e.f", (7, 1), (7, 9))],
)
def test_the_place_of_a_key_and_of_its_value(key: str, place: tuple[int, int], value: tuple[int, int]) -> None:
    text = "a = 1\n  \"b c\"  = 'x'\n# = 1\n\td=[\n1,\n]\n'e.f' = 2\n"
    assert toml_lines.place_of(text, key) == place
    assert toml_lines.place_of(text, key, value=True) == value
