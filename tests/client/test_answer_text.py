"""The words of a refusal: one short, printable line, or nothing."""

from __future__ import annotations

import base64

import pytest

from etherws.client.answer_text import number, secrets_of, spoken, wants_tls, words
from etherws.client.http_answer import HttpAnswer


def said(body: bytes, kind: str = "", *secrets: str, more: str = "") -> str:
    """The words in this body, of this Content-Type."""
    head = "HTTP/1.1 400 x" + (f"\r\nContent-Type: {kind}" if kind else "") + more
    return words(HttpAnswer(head.encode()), body, secrets)


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("text/plain", b"there is no tunnel at this path\n", "there is no tunnel at this path"),
        ("text/plain; charset=utf-8", b"\n\r\n  first \t words  \r\nsecond", "first words"),
        ("TEXT/PLAIN", b"a\x1b[2Jb\x00", "a?[2Jb?"),
        ("", b"no type", "no type"),
        ("", b"a\x1b[2Jb", ""),
        ("application/octet-stream", b"\x89PNG\r\n\x1a", ""),
        ("application/json", b'{\n  "message": "no Route matched"\n}', '"message": "no Route matched"'),
        ("text/html", b"<html><TITLE lang='en'>404 &amp; gone\n away</TITLE><p>more", "404 & gone away"),
        ("text/html", b"plain words", ""),
        ("", b"\n <!doctype html><title>T</title>", "T"),
        ("text/html", b"<title>cut in the mid", ""),
        ("text/html", b"<title", ""),
        ("text/html", b"<title>&#x202e;a</title>", "?a"),
        ("text/plain", b"<?xml version='1.0'?><Error/>", ""),
        ("text/plain", b"\xef\xbb\xbfmark", "mark"),
        ("text/plain", "caf\u00e9\u202e".encode(), "caf\u00e9?"),
        ("text/plain", b"caf\xc3", "caf\ufffd"),
        ("text/plain", b"...\n---\n", ""),
        ("text/plain", b"", ""),
    ],
)
def test_the_first_line_or_the_title_is_shown(kind: str, body: bytes, expected: str) -> None:
    assert said(body, kind) == expected


def test_a_long_line_is_cut() -> None:
    assert said(b"x" * 4096, "text/plain") == "x" * 117 + "..."


def test_the_number_of_a_refusal_is_never_cut_off() -> None:
    body = b"y" * 200 + b" (refusal 3f2a91c4)"
    assert said(body, "text/plain") == "y" * 98 + "... (refusal 3f2a91c4)"
    assert number(body + b"\nmore") == " (refusal 3f2a91c4)"
    assert number(b"(refusal x)") == number(b"") == number(body, ["", "3f2a91c4"]) == ""


def test_a_compressed_body_is_not_shown() -> None:
    assert said(b"words", "text/plain", more="\r\nContent-Encoding: gzip") == ""
    assert said(b"words", "text/plain", more="\r\nContent-Encoding: identity") == "words"


def test_a_line_that_repeats_a_secret_is_not_shown() -> None:
    assert said(b"bad token: s3cret!", "text/plain", "", "s3cret") == ""
    assert said(b"<title>s3&#99;ret</title>", "text/html", "s3cret") == ""
    assert said(b"bad token", "text/plain", "s3cret") == "bad token"


def test_the_secrets_of_an_authorization_header() -> None:
    basic = base64.b64encode(b"user:pass:word").decode()
    assert secrets_of(f"Basic {basic}") == (basic, "pass:word")
    assert secrets_of("Bearer abc_def") == ("abc_def", "")
    assert secrets_of("Bearer " + base64.b64encode(b"\xff").decode()) == ("/w==", "")
    assert secrets_of("") == ("", "")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x15\x03\x01\x00\x02\x02\x46", "TLS"),
        (b"\x16\x03\x03", "TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
        (b"220 mail.example ESMTP\r\n", "the protocol of a mail or FTP server"),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "HTTP/2"),
        (b"HTTP/2 200\r\n\r\n", "HTTP/2"),
        (b"\x15\x04", ""),
        (b"RFB 003.008\n", ""),
        (b"", ""),
    ],
)
def test_what_does_not_speak_http_is_known_by_its_first_bytes(data: bytes, expected: str) -> None:
    assert spoken(data) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"<title>400 The plain HTTP request was sent to HTTPS port</title>", True),
        (b"Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />", True),
        (b"Client sent an HTTP request to an HTTPS server.\n", True),
        (b"Bad Request", False),
    ],
)
def test_a_port_for_tls_says_so_in_a_body(body: bytes, expected: bool) -> None:
    assert wants_tls(body) is expected
