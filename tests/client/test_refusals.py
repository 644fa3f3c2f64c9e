"""What an answer that is no 101 means: the hint for each, the server's words beside it, and what is kept out."""

from __future__ import annotations

from typing import Any

import pytest

from etherws.client.http_answer import HttpAnswer
from etherws.client.refusals import RETRY_AFTER_MAX, refusal
from etherws.client.uris import split_uri
from etherws.errors import ConnectError, NoSuchLink, NotAdmitted


def refused(head: str, body: bytes = b"", uri: str = "ws://server.example/lan?t=1", **more: Any) -> ConnectError:
    """The error for this answer."""
    return refusal(HttpAnswer(head.encode(errors="surrogateescape")), split_uri(uri)[0], body=body, **more)


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (200, "that is a web server, and no tunnel is at /lan; are the host, the port and the path right?"),
        (400, "does a proxy between drop headers, or speak HTTP/1.0? see docs/reverse-proxies.rst"),
        (404, "is the path right? it was asked for /lan; a proxy between may change it"),
        (405, "that is a web server, and no tunnel is at /lan; are the host, the port and the path right?"),
        (407, "a proxy on the way wants a login; name it by --proxy"),
        (409, "further connections of a link must reach the server that has the first one; see docs/resilience.rst"),
        (421, "it does not serve this name; is the URI's host right, and --sni?"),
        (426, "does a proxy between drop the Upgrade header? see docs/reverse-proxies.rst"),
        (429, "too many wrong passwords came from this address; wait some minutes"),
        (500, "the server's log has the reason"),
        (501, "it cannot carry a tunnel; is that an etherws server?"),
        (502, "a proxy answers, but cannot reach etherws behind it; the proxy's log has the reason"),
        (503, "it has no free port, or is draining or stopping; the server's log has the reason"),
        (504, "a proxy answers, but got no answer from etherws behind it in time"),
        (511, "this network wants a login first; open any web page in a browser"),
        (522, "a proxy answers, but cannot reach etherws behind it; the proxy's log has the reason"),
        (418, ""),
        (799, ""),
    ],
)
def test_each_status_has_its_hint_and_the_servers_words(status: int, hint: str) -> None:
    plain = refused(f"HTTP/1.1 {status} x")
    assert str(plain).partition("; ")[2] == hint
    assert not isinstance(plain, NotAdmitted)
    assert isinstance(plain, NoSuchLink) == (status == 409)
    assert str(refused(f"HTTP/1.1 {status} x", b"out of\x1b order 17\nmore")) == str(plain)
    worded = refused(f"HTTP/1.1 {status} x\r\nContent-Type: text/plain", b"out of\x1b order 17\nmore")
    assert str(worded) == f"{plain}; it says: out of? order 17"
    # The same reason, whatever the server says.
    assert worded.kind == plain.kind


def test_401_has_the_number_of_the_refusal_and_sees_that_the_login_was_lost() -> None:
    body = b"this server asks for a token (refusal 3f2a91c4)\n"
    head = "HTTP/1.1 401 x\r\nContent-Type: text/plain\r\nWWW-Authenticate: Bearer"
    sent = str(refused(head, body, authorization="Bearer abc"))
    assert sent == (
        "answered 401 Unauthorized; it got no credentials, though they were sent; does a proxy between drop the"
        " Authorization header? (refusal 3f2a91c4)"
    )
    assert (
        str(refused(head, body)) == "answered 401 Unauthorized; it asks for a token (--token-file) (refusal 3f2a91c4)"
    )


def test_401_names_what_was_refused_and_what_is_asked_for_but_never_the_servers_words() -> None:
    basic = "HTTP/1.1 401 x\r\nContent-Type: text/plain\r\nWWW-Authenticate: Basic realm=x"
    bearer, both = basic.replace("Basic", "Bearer"), basic + "\r\nWWW-Authenticate: Bearer"
    user, token, other = "Basic dTpw", "Bearer abc", "Negotiate xyz"
    start = "answered 401 Unauthorized; "
    for head, authorization, words in (
        (basic, "", "it asks for a user and password (--user)"),
        (bearer, "", "it asks for a token (--token-file)"),
        (both, "", "it asks for a user and password (--user) or a token (--token-file)"),
        (
            "HTTP/1.1 401 x\r\nWWW-Authenticate: NTLM",
            "",
            "it asks for credentials of a kind that etherws does not have",
        ),
        ("HTTP/1.1 401 x\r\nWWW-Authenticate: ", "", "it asks for credentials of a kind that etherws does not have"),
        (basic, user, "it does not accept this user and password"),
        (both, token, "it does not accept this token"),
        ("HTTP/1.1 401 x", token, "it does not accept this token"),
        (basic, token, "it does not accept this token; it asks for a user and password (--user)"),
        (bearer, user, "it does not accept this user and password; it asks for a token (--token-file)"),
        (basic, other, "it does not accept the credentials in --header; it asks for a user and password (--user)"),
    ):
        error = refused(head, b"wrong: dTpw abc", authorization=authorization)
        assert isinstance(error, NotAdmitted)
        assert str(error) == start + words


def test_403_is_a_refusal_and_has_words() -> None:
    error = refused("HTTP/1.1 403 x\r\nContent-Type: text/plain", b"not you")
    assert isinstance(error, NotAdmitted)
    assert str(error) == "answered 403 Forbidden; it does not let this client in; it says: not you"
    assert error.kind == refused("HTTP/1.1 403 x").kind


def test_words_that_repeat_what_we_sent_are_left_out() -> None:
    head, sent = "HTTP/1.1 400 x\r\nContent-Type: text/plain", "Basic dTpwIQ=="
    for words, more in (
        (b"bad header dTpwIQ==", {"authorization": sent}),
        (b"bad password: p!", {"authorization": sent}),
        (b"no /lan?t=1", {"secrets": ("t=1",)}),
    ):
        assert "it says" in str(refused(head, words))
        assert "it says" not in str(refused(head, words, **more))


@pytest.mark.parametrize(
    ("uri", "location", "words"),
    [
        ("ws://h.example/lan", "https://h.example/lan", "to https; use wss://h.example/lan"),
        ("ws://h.example:8080/lan", "https://u@h.example:8443/?a", "to https; use wss://h.example:8443/"),
        ("wss://h.example/lan", "https://h.example/login?state=1", "to https://h.example/login; etherws follows no"),
        (
            "ws://h.example/lan",
            "https://portal.example/?s=2",
            "to https://portal.example/; etherws follows no redirects",
        ),
        ("ws://h.example/lan", "/login\x1b[2J", "to /login?[2J; etherws follows no redirects, name that URI"),
        ("ws://h.example/lan", "http://[", "to http://[; etherws follows no redirects"),
        ("ws://h.example/lan", "", "to ; etherws follows no redirects"),
    ],
)
def test_a_redirect_names_its_target_and_is_not_followed(uri: str, location: str, words: str) -> None:
    error = refused(f"HTTP/1.1 301 x\r\nLocation: {location}", uri=uri)
    assert f"answered 301 Moved Permanently {words}" in str(error)
    if "follows" in words:
        # A portal's target is another one each time.
        assert error.kind == refused("HTTP/1.1 301 x\r\nLocation: /other", uri=uri).kind
    else:
        other = refused("HTTP/1.1 301 x\r\nLocation: https://h.example/session/xy", uri=uri)
        assert error.kind == other.kind


def test_a_port_for_tls_is_named_if_the_uri_has_none() -> None:
    body = b"Client sent an HTTP request to an HTTPS server.\n"
    for uri, words in (
        ("ws://h.example/lan?t=1", "this port speaks TLS: use wss://h.example:80/lan"),
        ("ws://h.example:443/", "this port speaks TLS: use wss://h.example/"),
        ("ws://h.example/{lan}", "this port speaks TLS: use wss://h.example:80/{lan}"),
        ("wss://h.example/", "does a proxy between drop headers"),
    ):
        assert words in str(refused("HTTP/1.1 400 x", body, uri=uri))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("\x15\x03\x01\x00\x02\x02\x16", "this port speaks TLS: use wss://server.example:80/lan"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "it speaks SSH there; is the port right?; it says: SSH-2.0-OpenSSH_9.2"),
        (
            "220 m ESMTP\r\nx",
            "it speaks the protocol of a mail or FTP server there; is the port right?; it says: 220 m",
        ),
        ("\0\0\x12\x04\0\0\0", "it speaks HTTP/2 there; etherws needs HTTP/1.1"),
        ("RFB\x1b\n", "that is not HTTP; is the port right?; it says: RFB?"),
        ("\n", "that is not HTTP; is the port right?"),
    ],
)
def test_what_is_not_http_is_named(answer: str, words: str) -> None:
    error = refused(answer)
    assert str(error).startswith(f"gave no valid answer to the upgrade: {words}")
    assert "says" not in error.kind


def test_a_program_that_echoes_the_request_does_not_bring_its_secrets_into_the_log() -> None:
    request, long = "GET /lan?t=1 HTTP/1.1\r\nHost: server.example", "x" * 150
    assert "it says: GET /lan?t=1" in str(refused(request))
    assert str(refused(request, secrets=("t=1",))).endswith("that is not HTTP; is the port right?")
    assert "says" not in str(refused("Authorization: Basic dTpwIQ==", authorization="Basic dTpwIQ=="))
    # Also one of which only the beginning would be shown.
    assert "says" not in str(refused(f"GET /?{long} HTTP/1.1", secrets=(long,)))


def test_retry_after_counts_in_seconds_only() -> None:
    for status, value, wait in ((503, "120", 120), (429, "99999", RETRY_AFTER_MAX), (503, "soon", 0), (404, "9", 0)):
        assert refused(f"HTTP/1.1 {status} x\r\nRetry-After: {value}").wait == wait
