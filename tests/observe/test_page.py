"""The files of the page, and their headers."""

from __future__ import annotations

import re

import pytest

from etherws.observe.page import HEADERS, NAMES, TYPES, asset

PATHS = ("/", "login", "/favicon.ico", "/page/icon.svg", "/page/page.css", "/page/page.js")


@pytest.mark.parametrize("path", PATHS)
def test_a_file_has_its_type_its_tag_and_the_strict_headers(path: str) -> None:
    found = asset(path)
    assert found
    kind, content, headers = found
    assert kind in TYPES.values()
    assert content
    names = dict(headers)
    assert names.items() >= dict(HEADERS).items()
    assert re.fullmatch('"[0-9a-f]{32}"', names["ETag"])
    policy = names["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    "path",
    ["", "/page", "/page/", "/page/page.html", "/page/login.html", "/page/../page.py", "/page/nothing.js", "page.css"],
)
def test_there_is_nothing_else(path: str) -> None:
    assert asset(path) is None


def test_tags_are_of_the_content() -> None:
    tags = {dict(found[2])["ETag"] for path in (*NAMES, "/page/page.css", "/page/page.js") if (found := asset(path))}
    assert len(tags) == 5


def test_pages_name_only_files_that_are_there_and_nothing_inline() -> None:
    """As the policy demands: a browser would only say so in its console."""
    for name in ("/", "login"):
        found = asset(name)
        assert found
        text = found[1].decode()
        for path in re.findall(r'(?:src|href)="([^"#]+)"', text):
            assert asset(path), path
        assert not re.search(r"<style|style=|\son\w+=|<script(?! type=\"module\" src=)|https?:", text)


def test_modules_import_only_files_that_are_there_and_make_no_markup() -> None:
    pending, seen = ["/page/page.js"], set()
    while pending:
        path = pending.pop()
        seen.add(path)
        found = asset(path)
        assert found, path
        text = found[1].decode()
        assert len(text.splitlines()) <= 300, path
        assert text.startswith("// "), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path
        )
        pending += [f"/page/{name}" for name in re.findall(r'from "\./([\w.]+)"', text) if f"/page/{name}" not in seen]
    assert len(seen) == 10
