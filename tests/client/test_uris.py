"""What a URI may look like: which server it names, and what is said about one that names none."""

from __future__ import annotations

import pytest

from etherws.client.uris import ServerUri, split_uri, tls_name
from etherws.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "secure", "host", "port", "path"),
    [
        ("ws://host", False, "host", 80, "/"),
        ("wss://host/", True, "host", 443, "/"),
        ("WSS://Host.Example/Lan", True, "host.example", 443, "/Lan"),
        (" ws://host/\n", False, "host", 80, "/"),
        ("ws://host:/", False, "host", 80, "/"),
        ("ws://host:65535/a/b%20c", False, "host", 65535, "/a/b%20c"),
        ("ws://host/@me", False, "host", 80, "/@me"),
        ("wss://host.example./", True, "host.example.", 443, "/"),
        ("wss://my_host/", True, "my_host", 443, "/"),
        ("wss://b\u00fccher.example/\u00fc", True, "xn--bcher-kva.example", 443, "/%C3%BC"),
        ("wss://xn--bcher-kva.example/", True, "xn--bcher-kva.example", 443, "/"),
        ("ws://192.0.2.1:8080/", False, "192.0.2.1", 8080, "/"),
        ("ws://127.1/", False, "127.0.0.1", 80, "/"),
        ("ws://0x7f.1/", False, "127.0.0.1", 80, "/"),
        ("ws://2130706433/", False, "127.0.0.1", 80, "/"),
        ("ws://010.0.0.1/", False, "8.0.0.1", 80, "/"),
        ("ws://10.1.2/", False, "10.1.0.2", 80, "/"),
        ("ws://0xg.1/", False, "0xg.1", 80, "/"),
        ("ws://[2001:DB8::1]:8080/", False, "2001:db8::1", 8080, "/"),
        ("ws://[::ffff:192.0.2.1]/", False, "::ffff:192.0.2.1", 80, "/"),
    ],
)
def test_what_a_uri_names(text: str, secure: bool, host: str, port: int, path: str) -> None:
    uri, user, password = split_uri(text)
    assert (uri.secure, uri.host, uri.port, uri.path, uri.zone) == (secure, host, port, path, "")
    assert (user, password) == (None, None)


def test_the_query_stays() -> None:
    assert split_uri("ws://host?a=b&c")[0].resource_name == "/?a=b&c"


@pytest.mark.parametrize("text", ["ws://[fe80::1%25eth0]:81/", "ws://[FE80::1%eth0]:81/"])
def test_a_zone_is_for_connecting_and_not_for_the_server(text: str) -> None:
    # RFC 6874, section 1: a zone means something on this machine only.
    assert split_uri(text)[0] == ServerUri(False, "fe80::1", 81, "/", "", zone="eth0")


def test_user_and_password_are_taken_out() -> None:
    uri, user, password = split_uri("wss://me:p%40s%C3%A4@host/x")
    assert (uri.host, user, password) == ("host", "me", "p@s\u00e4")
    assert uri.username is uri.password is None
    assert split_uri("ws://me@host/")[1:] == ("me", None)


LOGIN = "cannot be parsed; in the user and password, write / ? # @ : [ ] as %2F %3F %23 %40 %3A %5B %5D"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://host/", "http:// is for web pages; the same server's tunnel is ws://"),
        ("https://me:pw@host/", "https:// is for web pages; the same server's tunnel is wss://"),
        ("host.example", "it has no scheme; write ws://HOST/"),
        ("host:8080", "it has no scheme; write ws://HOST/"),
        ("", "it has no scheme"),
        ("wss+unix://host/", "scheme isn't ws or wss"),
        ("ws:host", "hostname isn't provided"),
        ("ws:///lan", "hostname isn't provided"),
        ("ws://host/#lan", "fragment"),
        ("ws://host:0/", "no server has port 0"),
        ("ws://host:65536/", "Port out of range 0-65535"),
        ("ws://host:http/", "Port could not be cast"),
        ("ws://host/a b", "a space or an unprintable character is in it; write a space as %20"),
        ("ws://ho\tst/", "a space or an unprintable character"),
        ("ws://host/\r\nX: y", "a space or an unprintable character"),
        ("ws://a b@host/", "a space or an unprintable character"),
        ("ws://ho%73t/", "its host is neither a name nor an address"),
        ("ws://host..example/", "its host is neither a name nor an address"),
        ("ws://" + "a" * 64 + ".example/", "its host is neither a name nor an address"),
        ("ws://" + "a." * 127 + "aa/", "its host is neither a name nor an address"),
        ("ws://1.2.3.256/", "a number is too large"),
        ("ws://256.1.1/", "a number is too large"),
        ("ws://1.2.3.4.5/x y", "a space"),
        ("ws://stra\u00dfe.example/", "two standards write differently; write it as xn--"),
        ("ws://[::1/", "Invalid IPv6 URL"),
        ("ws://fe80::1/", "an IPv6 address stands in brackets, as in ws://[2001:db8::1]:8080/"),
        ("wss://2001:db8::1:443/", "an IPv6 address stands in brackets"),
        ("ws://me:secret@::1/", "an IPv6 address stands in brackets"),
        ("ws://[fe80::1%25]/", "only link-local addresses have a zone"),
        ("ws://[2001:db8::1%25eth0]/", "only link-local addresses have a zone"),
        ("ws://me:secret#1@host/", LOGIN),
        ("ws://me:secret/1@host/", LOGIN),
        ("ws://me:sec[ret@host/", LOGIN),
        ("ws://me:%ff@host/", LOGIN),
    ],
)
def test_a_uri_that_names_no_server_says_why(text: str, reason: str) -> None:
    with pytest.raises(SettingsError) as caught:
        split_uri(text)
    message = str(caught.value)
    assert message.startswith(f"--uri {text.strip().rpartition('@')[2]!r}: ")
    assert reason in message
    assert message.endswith("; write ws://HOST/ or wss://HOST/")
    assert "secret" not in message
    assert message.isprintable()


def test_tls_has_names_without_the_dot_at_their_end() -> None:
    assert (tls_name("host.example."), tls_name("host.example"), tls_name("::1")) == (
        "host.example",
        "host.example",
        "::1",
    )
