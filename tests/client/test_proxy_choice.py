"""The choice of a proxy: curl's rules as tables, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from etherws.addresses import authority
from etherws.client.proxy_choice import Proxy, ProxyChoice, needs_no_proxy, parse_connect_to
from etherws.errors import SettingsError

A, B, C, D = (f"http://{name}:1" for name in "abcd")

#: Environment, what is expected of ws:// and of wss://: a proxy's name and the variable that it comes from.
ENVIRONMENTS: list[tuple[dict[str, str], str, str]] = [
    ({}, "", ""),
    ({"http_proxy": A}, "a http_proxy", ""),
    ({"https_proxy": A}, "", "a https_proxy"),
    ({"HTTP_PROXY": A}, "", ""),
    ({"HTTPS_PROXY": A}, "", "a HTTPS_PROXY"),
    ({"all_proxy": A}, "a all_proxy", "a all_proxy"),
    ({"ALL_PROXY": A}, "a ALL_PROXY", "a ALL_PROXY"),
    ({"all_proxy": A, "ALL_PROXY": B}, "a all_proxy", "a all_proxy"),
    ({"https_proxy": A, "HTTPS_PROXY": B}, "", "a https_proxy"),
    ({"https_proxy": "", "HTTPS_PROXY": B}, "", "b HTTPS_PROXY"),
    ({"http_proxy": A, "https_proxy": B, "all_proxy": C}, "a http_proxy", "b https_proxy"),
    ({"HTTP_PROXY": A, "all_proxy": C}, "c all_proxy", "c all_proxy"),
    ({"ws_proxy": D, "http_proxy": A, "WSS_PROXY": C, "https_proxy": B}, "d ws_proxy", "c WSS_PROXY"),
    ({"ftp_proxy": A}, "", ""),
    ({"all_proxy": A, "no_proxy": "server"}, "", ""),
    ({"all_proxy": A, "NO_PROXY": "server"}, "", ""),
    ({"all_proxy": A, "no_proxy": "other", "NO_PROXY": "server"}, "a all_proxy", "a all_proxy"),
]


def chosen(choice: ProxyChoice, secure: bool) -> str:
    """The proxy's name and where it comes from."""
    proxy, why = choice.proxy_for("server", secure)
    assert (proxy is None) or str(proxy) in why
    return f"{proxy.host} {proxy.source}" if proxy else ""


@pytest.mark.parametrize(("environ", "plain", "secure"), ENVIRONMENTS)
def test_the_environment_is_read_by_the_rules_of_curl(environ: dict[str, str], plain: str, secure: str) -> None:
    assert chosen(ProxyChoice(environ=environ), False) == plain
    assert chosen(ProxyChoice(environ=environ), True) == secure


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"proxy": B}, "b --proxy"),
        ({"proxy": ""}, ""),
        ({"noproxy": "server"}, ""),
        ({"noproxy": "other"}, "a all_proxy"),
        ({"noproxy": ""}, "a all_proxy"),
        ({"proxy": B, "noproxy": "*"}, ""),
        ({"proxy": B, "connect_to": ("elsewhere", 1)}, "b --proxy"),
    ],
)
def test_options_come_before_the_environment(options: dict[str, Any], expected: str) -> None:
    assert chosen(ProxyChoice(**options, environ={"all_proxy": A, "no_proxy": "nobody"}), True) == expected


def test_noproxy_replaces_the_variable() -> None:
    environ = {"all_proxy": A, "no_proxy": "server"}
    assert chosen(ProxyChoice(noproxy="", environ=environ), False) == "a all_proxy"
    assert chosen(ProxyChoice(proxy=B, environ=environ), False) == ""


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (ProxyChoice(), ""),
        (ProxyChoice("http://proxy"), "through the proxy http://proxy:1080 (from --proxy)"),
        (ProxyChoice("http://proxy", "server"), "directly to server: --noproxy excludes it from the proxy in --proxy"),
        (
            ProxyChoice(environ={"https_proxy": A, "NO_PROXY": "*"}),
            "directly to server: NO_PROXY excludes it from the proxy in https_proxy",
        ),
    ],
)
def test_the_reason_is_given(choice: ProxyChoice, words: str) -> None:
    assert choice.proxy_for("server", True)[1] == words


@pytest.mark.parametrize(
    ("host", "names", "expected"),
    [
        ("www.example.com", "example.com", True),
        ("www.example.com", ".example.com", True),
        ("example.com", ".example.com", True),
        ("www.example.com", "a.test, Example.COM", True),
        ("WWW.example.com.", "example.com", True),
        ("www.example.com", "example.com.", True),
        ("notexample.com", "example.com", False),
        ("example.com", "www.example.com", False),
        ("example.com", "a.test b.test\texample.com", True),
        ("example.com", "*", True),
        ("example.com", " * ", True),
        ("example.com", "*.com", False),
        ("example.com", "", False),
        ("example.com", ",,", False),
        ("example.com", ".", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.0/24", True),
        ("192.0.2.1", "192.0.2.9/24", True),
        ("192.0.3.1", "192.0.2.0/24", False),
        ("192.0.2.1", "0.2.1", False),
        ("192.0.2.1", "192.0.2.0/99 192.0.2.1", True),
        ("2001:db8::1", "2001:db8::/32", True),
        ("2001:db8::1", "[2001:DB8:0::1]", True),
        ("2001:db8::1", "192.0.2.0/24,2001:db9::/32", False),
        ("2001:db8::1", "*", True),
        ("server", "192.0.2.0/24", False),
    ],
)
def test_what_needs_no_proxy(host: str, names: str, expected: bool) -> None:
    assert needs_no_proxy(host, names) is expected


@pytest.mark.parametrize(
    ("url", "text", "user", "password"),
    [
        ("proxy", "http://proxy:1080", None, ""),
        ("proxy:3128", "http://proxy:3128", None, ""),
        ("HTTP://Proxy:3128/", "http://proxy:3128", None, ""),
        ("https://proxy", "https://proxy:443", None, ""),
        ("socks5://proxy", "socks5://proxy:1080", None, ""),
        ("socks5h://[::1]:9", "socks5://[::1]:9", None, ""),
        ("http://[2001:db8::1]", "http://[2001:db8::1]:1080", None, ""),
        ("http://user:pass@proxy", "http://proxy:1080", "user", "pass"),
        ("user@proxy:8", "http://proxy:8", "user", ""),
        ("http://:@proxy", "http://proxy:1080", "", ""),
        ("http://D%5Cuser:p%40%3A%2F%25%C3%A9@proxy", "http://proxy:1080", "D\\user", "p@:/%é"),
        ("socks5://a%3Ab:c@proxy", "socks5://proxy:1080", "a:b", "c"),
        ("http://bücher.example", "http://xn--bcher-kva.example:1080", None, ""),
    ],
)
def test_the_url_of_a_proxy(url: str, text: str, user: str | None, password: str) -> None:
    proxy = Proxy.parse(url, "--proxy")
    assert (str(proxy), proxy.user, proxy.password) == (text, user, password)


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "'' has no valid host"),
        ("http://", "'http://' has no valid host"),
        (f"http://u:{SECRET}@", "'' has no valid host"),
        (f"http://u:{SECRET}@pro xy", "'pro xy' has no valid host"),
        (f"http://u:{SECRET}@a..b", "has no valid host"),
        (f"http://u:{SECRET}@proxy:port", "is not a proxy's URL; write http://HOST:PORT"),
        (f"http://u:{SECRET}@proxy:99999", "is not a proxy's URL"),
        (f"http://u:{SECRET}@[proxy", "is not a proxy's URL"),
        (f"http://u:{SECRET}%ff@proxy", "is not a proxy's URL"),
        (f"socks4://u:{SECRET}@proxy", "unknown kind of proxy; choose one of http, https, socks5, socks5h"),
        (f"http://u:{SECRET}@proxy/pac", "has a path"),
        (f"http://u:{SECRET}@proxy?x", "has a path"),
        (f"http://u:{SECRET}%0d%0aX@proxy", "its user or password has an unprintable character"),
        (f"http://%00:{SECRET}@proxy", "its user or password has an unprintable character"),
        (f"http://a%3Ab:{SECRET}@proxy", "its user has a colon"),
        (f"http://u:{SECRET * 50}@proxy", "longer than 255 bytes"),
    ],
)
def test_a_malformed_proxy_is_refused_with_its_source_and_without_its_password(url: str, words: str) -> None:
    with pytest.raises(SettingsError, match=r"^https_proxy '") as caught:
        Proxy.parse(url, "https_proxy")
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_no_repr_shows_a_password() -> None:
    url = f"http://user:{SECRET}@proxy"
    choice = ProxyChoice(url, environ={"https_proxy": url})
    assert SECRET not in repr(choice) + repr(choice.proxy_for("server", True))


def test_a_host_that_would_change_the_request_is_refused() -> None:
    for host in ("a b", "a\x0b", "a/b", ""):
        with pytest.raises(SettingsError, match="has no valid host"):
            ProxyChoice(A).proxy_for(host, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server:443", ("server", 443)),
        ("192.0.2.1:8080", ("192.0.2.1", 8080)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
    ],
)
def test_connect_to(text: str, expected: tuple[str, int]) -> None:
    assert parse_connect_to(text) == expected
    assert authority(*expected) == text


@pytest.mark.parametrize(
    "text", ["", "server", "server:", ":80", "server:0", "::1:80", "a:b:80", "u@h:80", "h:80/", "h:99999"]
)
def test_connect_to_needs_host_and_port(text: str) -> None:
    with pytest.raises(SettingsError, match="--connect-to"):
        parse_connect_to(text)
