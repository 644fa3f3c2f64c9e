"""What the server's answer to the upgrade request means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.check.findings import Finding, Verdict
from etherws.check.path.answers import agreed, answered, refused
from etherws.check.path.hops import Hop, hops
from etherws.client.http_answer import HttpAnswer
from etherws.client.refusals import refusal
from etherws.client.upgrade import Agreement
from etherws.client.uris import split_uri
from etherws.errors import ConnectError
from etherws.tunnel.wire import Version1, Version2
from tests.lab.checking import answer


def judged(
    status: str,
    *headers: str,
    body: bytes = b"",
    secure: bool = True,
    sent: str = "",
    error: ConnectError | None = None,
) -> Finding:
    """The finding for this answer; `sent` are credentials."""
    found = answer("Content-Type: text/plain", *headers, status=status)
    uri, _, _ = split_uri("wss://lan.example/tunnel" if secure else "ws://lan.example/tunnel")
    error = error or refusal(found, uri, body=body, authorization=sent)
    return refused(error, found, body, hops(found, body), secure=secure, sent=bool(sent))


LOST = b"the Upgrade header does not say 'websocket'; does a proxy on the way drop it?"

#: Case: what judged() takes, the topic, and words of the finding.
REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...], str, str]] = {
    "nginx": ({"body": LOST}, ("426 Upgrade Required", "Server: nginx"), "upgrade", "nginx has dropped it"),
    "in TLS": ({"body": LOST}, ("426 Upgrade Required",), "upgrade", "must pass Upgrade and Connection on"),
    "in the clear": ({"body": LOST, "secure": False}, ("426 Upgrade Required",), "upgrade", "use wss://"),
    "no credentials arrived": (
        {"body": b"this server asks for a token", "sent": "Bearer x"},
        ("401 Unauthorized", "Server: nginx"),
        "login",
        "nginx has dropped the Authorization header",
    ),
    "and nobody knows why": (
        {"body": b"this server asks for a token", "sent": "Bearer x"},
        ("401 Unauthorized",),
        "login",
        "a proxy on the way has dropped the Authorization",
    ),
    "a wrong token": (
        {"body": b"wrong user, password or token", "sent": "Bearer x"},
        ("401 Unauthorized", "WWW-Authenticate: Bearer"),
        "login",
        "does not accept this token",
    ),
    "no token": (
        {"body": b"this server asks for a token"},
        ("401 Unauthorized", "WWW-Authenticate: Bearer"),
        "login",
        "it asks for a token",
    ),
    "a login of nginx's": (
        {"body": b"<html>"},
        ("401 Unauthorized", "Server: nginx"),
        "login",
        "nginx asks for a login",
    ),
    "another's login": ({"body": b"<html>"}, ("401 Unauthorized",), "login", "something on the way, and not etherws,"),
    "the policy": (
        {"body": b"the policy does not let this client connect"},
        ("403 Forbidden",),
        "policy",
        "connect = false",
    ),
    "a certificate without a name": (
        {"body": b"the client's certificate has no name"},
        ("403 Forbidden",),
        "login",
        "use a certificate",
    ),
    "a failed login after others": (
        {"body": b"too many wrong passwords or tokens from this address"},
        ("429 Too Many Requests",),
        "server",
        "wait some minutes",
    ),
    "HAProxy": (
        {"body": b"No server is available to handle this request."},
        ("503 x",),
        "upgrade",
        "HAProxy: answered",
    ),
    "Cloudflare": ({}, ("530 x", "CF-RAY: a", "Server: cloudflare"), "upgrade", "does cloudflared run?"),
    "full": ({"body": b"no port is free for one more client"}, ("503 x",), "server", "it is full"),
    "draining": ({"body": b"this server is draining"}, ("503 x",), "server", "it says: this server is draining"),
    "draining, behind a proxy": (
        {"body": b"this server is draining"},
        ("503 x", "Server: nginx"),
        "server",
        "connect to another server",
    ),
    "draining, behind HAProxy": (
        {"body": b"this server is draining: it takes no new clients"},
        ("503 x", "Via: 1.1 haproxy"),
        "server",
        "connect to another server",
    ),
    "ended by the operator": (
        {"body": b"the operator of this server has ended this client's tunnel; it may join again in 30 s"},
        ("403 Forbidden",),
        "server",
        "wait, or ask the operator",
    ),
    "a wrong password": (
        {"body": b"wrong user, password or token", "sent": "Basic x"},
        ("401 Unauthorized", "WWW-Authenticate: Basic"),
        "login",
        "is the name right, and the password?",
    ),
    "no tunnel": (
        {"body": b"there is no tunnel at this path"},
        ("404 x", "Server: nginx"),
        "upgrade",
        "is the path right",
    ),
    "a status that a hop does not explain": ({}, ("418 x", "Server: nginx"), "upgrade", "answered 418"),
    "a broken 101": (
        {"error": ConnectError("gave no valid answer to the upgrade: no accept")},
        ("101 x", "Server: Apache"),
        "upgrade",
        "mod_proxy_wstunnel",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_each_refusal_names_the_cause_and_the_mend(case: str) -> None:
    given_, head, topic, words = REFUSED[case]
    found = judged(*head, **given_)
    assert (found.topic, found.verdict) == (topic, Verdict.FAILED)
    assert words in f"{found.found} {found.hint}"


@pytest.mark.parametrize(
    ("status", "body"),
    [("403 x", b"this server has checks turned off (--no-check)"), ("503 x", b"another check is running")],
)
def test_a_server_that_answers_no_check_lets_the_client_in(status: str, body: bytes) -> None:
    found = judged(status, body=body)
    assert (found.topic, found.verdict) == ("measuring", Verdict.SKIPPED)
    assert "the client is let in" in found.hint


def shown(found: HttpAnswer, body: bytes = b"") -> tuple[Finding, list[Hop]]:
    """What answered() yields and returns."""
    steps = answered(found, body)
    finding = next(steps)
    try:
        next(steps)
    except StopIteration as end:
        return finding, end.value
    raise AssertionError("one finding is enough")


def test_who_has_answered() -> None:
    finding, known = shown(answer("Server: cloudflare", "Via: 1.1 Caddy", status="101 x"))
    assert finding.verdict is Verdict.OK
    assert finding.found.endswith("; on the way: Cloudflare, then Caddy")
    assert [hop.name for hop in known] == ["Cloudflare", "Caddy"]
    finding, known = shown(answer(status="404 x"))
    assert (finding.found, finding.verdict, known) == ("answered 404 Not Found", Verdict.NOTE, [])
    assert shown(HttpAnswer(b"SSH-2.0"))[0].found == "the answer is not HTTP"


def test_what_was_agreed_on() -> None:
    nginx = hops(answer("Server: nginx"), b"")
    login, features = agreed(Agreement(Version2()), {"v2": "", "mtu": "=1500"}, [], sent=True)
    assert "has taken the credentials" in login.found
    assert (features.found, features.verdict) == ("version 2 of the wire, mtu", Verdict.OK)
    login, features = agreed(Agreement(Version2()), {"v2": ""}, [], sent=False)
    assert "asks for no login" in login.found
    assert features.found == "version 2 of the wire"
    assert agreed(Agreement(Version1()), {}, [], sent=False)[1].verdict is Verdict.NOTE
    found = agreed(Agreement(Version1()), {"check": "", "mtu": "=1500"}, [], sent=False)[1]
    assert "though the server knows version 2" in found.found
    assert found.hint.startswith("start the server without --wire 1")
    found = agreed(Agreement(Version1()), {"check": ""}, [], sent=False, newest=1)[1]
    assert (found.verdict, found.hint) == (Verdict.NOTE, "leave out --wire 1")
    _, full, _ = agreed(Agreement(Version2()), {"v2": "", "check": ";full"}, [], sent=False)
    assert (full.topic, full.verdict) == ("server", Verdict.FAILED)
    assert "only interface" in full.hint
    for newest, listed in ((1, {}), (2, {"check": ""}), (2, {})):
        _, features = agreed(Agreement(Version1()), listed, [], sent=False, newest=newest)
        assert features.verdict is Verdict.NOTE
    doubt = Agreement(Version1(), doubt="a proxy removed it")
    assert agreed(doubt, {}, [], sent=False)[1].verdict is Verdict.WARNING
    assert "nginx: in the location" in agreed(doubt, {}, nginx, sent=False)[1].hint


@given(head=st.binary(max_size=300), body=st.binary(max_size=200), sent=st.booleans())
def test_whatever_is_answered_is_a_finding(head: bytes, body: bytes, sent: bool) -> None:
    found = HttpAnswer(b"HTTP/1.1 " + head)
    uri, _, _ = split_uri("wss://lan.example/")
    finding, known = shown(found, body)
    assert finding.found.isprintable()
    error = refusal(found, uri, body=body) if found.status != 101 else ConnectError("x")
    assert refused(error, found, body, known, secure=True, sent=sent).verdict in (Verdict.FAILED, Verdict.SKIPPED)
