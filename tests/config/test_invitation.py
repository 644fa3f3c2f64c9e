"""The line between ``etherws init server`` and ``etherws init client``: what is taken, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.config.invitation import LIFETIME, LINE_MAX, PREFIX, Invitation, parse
from etherws.errors import InvitationError

NOW = 1_790_000_000
INVITATION = Invitation("wss://host.example:8443/", "t" * 43, f"sha256//{'A' * 43}=", "lan", "branch 1", NOW)
LINE = INVITATION.line()


def signed(text: str) -> str:
    """The text with the check that belongs to it."""
    digest = hashlib.sha256(text.encode()).digest()[:8]
    return f"{text}:{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def line_of(body: object) -> str:
    """A line with this body, and the right check."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return signed(f"{PREFIX}:1:{base64.urlsafe_b64encode(raw).decode()}")


def refused(text: str, now: float = NOW) -> str:
    """Why it is refused; no word of it is in the reason."""
    with pytest.raises(InvitationError) as caught:
        parse(text, now)
    assert INVITATION.token not in str(caught.value)
    assert LINE[30:60] not in str(caught.value)
    return str(caught.value)


def test_what_was_written_is_read() -> None:
    assert parse(LINE, NOW) == INVITATION
    bare = replace(INVITATION, pin="")
    assert parse(bare.line(), NOW - 1e6) == bare
    assert INVITATION.token not in repr(INVITATION)


def test_programs_may_break_the_line() -> None:
    broken = "\r\n ".join(LINE[at : at + 70] for at in range(0, len(LINE), 70))
    assert parse(f"  {broken}\n\n", NOW) == INVITATION


@pytest.mark.parametrize(
    "text",
    [
        *(f"> {LINE}", f'"{LINE}"\n', f"\ufeff{LINE}", f"Paste this: {LINE}\n-- \nregards", LINE * 2, f"{LINE}\n" * 2),
        *(f"> {LINE[:70]}\n> {LINE[70:]}", f"Your {PREFIX}: {LINE}", f"{LINE[:90]}\n{LINE}"),
    ],
)
def test_what_was_copied_around_the_line_does_not_count(text: str) -> None:
    assert parse(text, NOW) == INVITATION


@pytest.mark.parametrize("length", [1, 5, len(PREFIX) - 1])
def test_less_than_its_first_word_is_none(length: int) -> None:
    assert "this is no invitation" in refused(LINE[:length])


def test_a_line_that_was_cut_or_changed_is_noticed() -> None:
    for length in range(len(PREFIX), len(LINE)):
        assert "was cut or changed" in refused(LINE[:length])
    for at in range(len(PREFIX) + 3, len(LINE)):
        assert "was cut or changed" in refused(LINE[:at] + ("B" if LINE[at] != "B" else "C") + LINE[at + 1 :])


def test_what_else_is_no_invitation() -> None:
    assert "there is no invitation" in refused(" \n")
    assert "this is no invitation" in refused("ssh-ed25519 AAAA")
    assert "this is no invitation" in refused(LINE + "x" * LINE_MAX)


@pytest.mark.parametrize(("version", "words"), [("2", "of a later form (2;"), ("0", "of an earlier form (0;")])
def test_a_line_of_another_version(version: str, words: str) -> None:
    assert words in refused(signed(f"{PREFIX}:{version}:body"))


def test_a_line_does_not_hold_for_ever() -> None:
    assert parse(LINE, NOW + LIFETIME) == INVITATION
    assert "is of 2026-09-21, and holds for 7 days" in refused(LINE, NOW + LIFETIME + 1)


@pytest.mark.parametrize("body", [b"\xff", b"[", b"[]", b"[" * 3000])
def test_a_body_that_is_no_table(body: bytes) -> None:
    assert "no uri that can be used" in refused(line_of(body))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("uri", "http://host/"),
        ("uri", "ws://host/"),
        ("uri", "wss://user:password@host/"),
        ("uri", 1),
        ("token", "a token"),
        ("token", ""),
        ("pin", "sha256//x"),
        ("name", "../lan"),
        ("name", "-x"),
        ("client", ""),
        ("client", None),
    ],
)
def test_a_body_with_what_cannot_be_used(key: str, value: object) -> None:
    assert f"no {key} that can be used" in refused(line_of({**asdict(INVITATION), key: value}))


@pytest.mark.parametrize("made", [None, "1", -1, 1 << 40, 1.5])
def test_a_body_without_a_time(made: object) -> None:
    assert "does not say when" in refused(line_of({**asdict(INVITATION), "made": made}))


@given(st.text(max_size=200), st.booleans())
def test_whatever_is_pasted_is_refused_in_words(text: str, prefixed: bool) -> None:
    assert refused(signed(f"{PREFIX}:1:{text}") if prefixed else text).isprintable()
