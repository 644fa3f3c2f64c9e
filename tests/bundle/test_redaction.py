"""What is replaced, in every form in which it may be written; the same thing has the same new name."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.bundle.redaction import AWKWARD_MAX, NAMES_MAX, Redactor

TOKEN = "mZ3kq9-Xw_LrT0vB7nYc5dPf1sHj8uGa2eRi6oKx4Qt"
KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIGl\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "password={}",
        '{{"password": "{}"}}',
        "Authorization: Basic x {}\n",
        "wss://alice:{}@h.example/",
        "wss://h.example/?t={}",
        "it said '{}'",
        "--user alice:{}",
        "x{}y",
    ],
)
@pytest.mark.parametrize("secret", ["hunter2!x", TOKEN, "pa/ss@wo:rd ?#%", "gehéim\\x\"'", "1234"])
def test_a_secret_in_each_form(text: str, secret: str) -> None:
    redactor = Redactor()
    redactor.secret(secret)
    raw = secret.encode()
    for form in (
        secret,
        quote(secret, safe=""),
        quote(secret),
        json.dumps(secret)[1:-1],
        raw.hex(),
        repr(secret)[1:-1],
    ):
        found = redactor.text(text.format(form))
        assert form not in found
        assert not redactor.holds_secret(found)


@pytest.mark.parametrize("before", ["", "a", "al", "alice:", "alice:x"])
@pytest.mark.parametrize("after", ["", "z", "zz", "zzz"])
def test_a_secret_within_base64(before: str, after: str) -> None:
    redactor = Redactor()
    redactor.secret("hunter2hunter3")
    encoded = base64.b64encode(f"{before}hunter2hunter3{after}".encode()).decode()
    found = redactor.text(f"x {encoded} y")
    # Of the whole word nothing is left that could be decoded to it.
    assert "secret-" in found
    assert base64.b64encode(b"hunter2hunter3")[4:12].decode() not in found


@pytest.mark.parametrize(
    "text",
    [
        f"a token {TOKEN} unknown to us",
        "Authorization: Basic YWxpY2U6c2VjcmV0dA==",
        "proxy-authorization: Digest username=x, response=6629fae49393a05397450978507c4ef1",
        "Cookie: a=geheim; b=geheim2",
        "{'Authorization': 'Bearer geheim'}",
        '"authorization": "Bearer geheim"',
        "Etherws-Resume: geheim",
        "sent Bearer Geheim123 there",
        "Sec-WebSocket-Protocol: etherws.v1, authorization.bearer.geheim",
        "alice:$2b$10$Q0uUUMUDJLcVd2YWTEvUAOgeheim",
        "alice:{SHA}geheim8bcdef=",
        "a:sha256:" + "0f" * 32,
        f"before\n{KEY}\nafter",
        "-----BEGIN PRIVATE KEY-----\ngeheim without an end",
        "wss://alice:geheim@h.example:8443/x",
        "wss://alice:gehe/im@h.example/",
        "https://h.example/?x=geheim",
        "api_key=geheim; secret: geheim, passphrase 'x'",
        "0123456789abcdef0123456789abcdef",
        "/" + "aB3" * 10,
        "aB3+" * 4 + "/" + "cD5/" * 8,
    ],
)
def test_what_looks_like_a_secret(text: str) -> None:
    found = Redactor().text(text)
    assert "secret-1" in found
    for part in ("geheim", "Geheim", TOKEN, "YWxp", "6629fae4", "0f0f0f", "MHcC", "aB3aB3", "cD5", "0123456789abcdef"):
        assert part not in found
    assert ("after" in found) == ("after" in text)


@pytest.mark.parametrize(
    "text",
    [
        "token_file=/etc/etherws/tokens",
        "--password-file /etc/x",
        "/usr/lib/python3/dist-packages/etherws/tunnel/Session1.py",
        "CAP_NET_BIND_SERVICE and bridge-nf-call-ip6tables",
        "6.18.44-fc-v669",
        "ws://*:80/ and ws://127.0.0.1:8080/lab",
        "ws://[::1]:80/",
        "the password is wrong",
    ],
)
def test_what_is_plain_stays(text: str) -> None:
    assert Redactor().text(text) == text


def test_the_same_thing_has_the_same_new_name() -> None:
    redactor = Redactor()
    redactor.name("alice")
    first = redactor.text("alice (8.8.8.8) at wss://h.example/; 02:00:00:00:00:01")
    assert first == "client-1 (address-1) at wss://host-1/; mac-1"
    assert redactor.text("alice: h.example, 8.8.8.8. bob alicebob h.example.") == (
        "client-1: host-1, address-1. bob alicebob host-1."
    )
    assert redactor.value({"identity": "alice", "to": ["h.example:443"], "n": [1, 0.5, None, True]}) == {
        "identity": "client-1",
        "to": ["host-1:443"],
        "n": [1, 0.5, None, True],
    }
    assert redactor.counts == {"client": 1, "host": 1, "address": 1, "mac": 1}
    # What was replaced is not replaced again.
    assert redactor.text(first) == first
    uri = redactor.text("wss://x:geheim@h.example/")
    assert uri == redactor.text(uri) == "wss://secret-1@host-1/"


def test_addresses_may_stay_and_secrets_do_not() -> None:
    redactor = Redactor(addresses=True)
    redactor.secret("hunter2")
    assert redactor.name("alice") == "alice"
    text = "alice (8.8.8.8) at wss://h.example/; 02:00:00:00:00:01; "
    assert redactor.text(text + "hunter2") == text + "secret-1"
    assert redactor.value({"identity": "alice", "password": "x"}) == {"identity": "alice", "password": "secret-2"}


def test_names_with_blanks_and_short_ones() -> None:
    redactor = Redactor()
    for name in ("bob smith", "CN=x,O=y", "al", "käthe\x1b[1m"):
        redactor.name(name)
    assert redactor.text("bob smith left; CN=x,O=y; k\\u00e4the\\u001b[1m") == "client-1 left; client-2; client-4"
    # It would be found in every second word.
    assert redactor.text("al") == "al"
    assert redactor.value({"client": "al"}) == {"client": "client-3"}


def test_what_is_learned_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    redactor = Redactor()
    for number in range(AWKWARD_MAX + 10):
        redactor.name(f"a b {number}")
    assert redactor.text(f"a b {AWKWARD_MAX + 5}") == f"a b {AWKWARD_MAX + 5}"
    monkeypatch.setattr("etherws.bundle.redaction.NAMES_MAX", 5)
    for number in range(10):
        redactor.name(f"name{number}")
    assert redactor.text("name9") == "name9"
    assert NAMES_MAX > 5


def test_learn_finds_names_and_hosts_in_values() -> None:
    redactor = Redactor()
    redactor.learn({"sessions": [{"identity": "alice", "server": "wss://h.example/"}], "n": 1, "client": ""})
    assert redactor.text("alice h.example") == "client-1 host-1"


def test_hosts_that_say_nothing_stay() -> None:
    redactor = Redactor()
    for host in ("localhost", "*", "", "10.0.0.1", "::1", "[::1]"):
        assert redactor.host(host) == host


def test_keys_of_values_and_other_things() -> None:
    redactor = Redactor()
    redactor.secret("hunter2")
    assert redactor.value({"hunter2": (1, {"x": b"hunter2"}), "token": "", "key_file": "/x"}) == {
        "secret-1": [1, {"x": "b'secret-1'"}],
        "token": "",
        "key_file": "/x",
    }


def test_a_secret_that_is_too_short_is_not_looked_for() -> None:
    redactor = Redactor()
    assert redactor.secret("a") == "secret-1"
    assert redactor.text("a cat") == "a cat"


@given(st.text(max_size=300))
def test_no_text_is_an_error(text: str) -> None:
    redactor = Redactor()
    redactor.secret("geheim")
    redactor.name("alice")
    assert not redactor.holds_secret(redactor.text(text + " geheim alice"))


def test_a_hostile_text_takes_no_long_time() -> None:
    redactor = Redactor()
    redactor.secret("geheim")
    for part in (
        "-----BEGIN PRIVATE KEY-----",
        "a:",
        "1.",
        "Authorization:",
        "://@",
        "password",
        "$2b$",
        "aB3/",
        "::",
        "a.b-",
    ):
        # Each would be minutes if the work was its square.
        redactor.text(part * (50_000 // len(part)))
