"""The page of all messages, which docs/messages.py makes of the sources; and docs/troubleshooting.rst, whose messages
are those of etherws."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Messages of others, and names, that stand for an entry of docs/troubleshooting.rst.
OTHERS = {"No such file or directory", "Read-only file system", "NO-CARRIER", "fe80::"}

#: So many characters of a message in a row are of etherws, though the reader's own names stand between.
ENOUGH = 9


@pytest.fixture(scope="module")
def messages() -> ModuleType:
    """The module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location("messages", ROOT / "docs" / "messages.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_messages_are_found(messages: ModuleType) -> None:
    found = {(message.level, message.text) for message in messages.messages()}
    assert len(found) > 400
    for level, text in (
        ("warning", "... was deleted; what etherws had in it joins again as soon as it is there again"),
        ("warning", "lost ...: ...; trying again"),
        ("info", "... left ... after ... s: ..."),
        ("error", "no password for the user ...; give --password-file, or ETHERWS_CLIENT_PASSWORD"),
        ("error", "a WebSocket begins with GET, not ..."),
        ("error", "unexpected error; please report it"),
    ):
        assert (level, text) in found
    assert not any(re.match(r"\d{3} ", text) for _, text in found)


def test_the_page_has_them_all(messages: ModuleType) -> None:
    page = messages.page()
    assert page.count("   * - ") == len(messages.messages()) + 1
    # What is markup in reStructuredText is none in a literal.
    assert "``--allow-origin ... is not an origin; write https://HOST, or * for all``" in page
    assert not any("``" in message.text for message in messages.messages())


def test_each_message_that_troubleshooting_explains_is_one_of_etherws() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "etherws").rglob("*.py"))
    # Literals that follow each other are one.
    said = re.sub(r'["\']\s*\n\s*f?["\']', "", sources)
    page = (ROOT / "docs" / "troubleshooting.rst").read_text(encoding="utf-8")
    entries = re.findall(r"^(\S.*)\n  \S", page, re.MULTILINE)
    assert len(entries) > 80
    for entry in entries:
        for message in re.findall("``(.+?)``", entry):
            pieces = [message[start : start + ENOUGH] for start in range(max(1, len(message) - ENOUGH + 1))]
            # A name alone, or an answer by HTTP, whose words are those of the other side.
            a_name = re.fullmatch(r"\w+|(answered )?[1-5]\d\d\b.*", message)
            assert a_name or message in OTHERS or any(piece in said for piece in pieces), message
