"""Who may ask what: the control socket, and --monitor with its strangers."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from etherws.errors import Refused
from etherws.observe.access import ControlAccess, MonitorAccess
from etherws.observe.logins import Digests, Logins, digest
from etherws.reloadable import Reloadable

TOKEN = "a-token-of-a-scraper"


class Door:
    """--monitor, and what it says to requests."""

    def __init__(self, *, tokens: bool = True) -> None:
        self.now = 100.0
        found: Reloadable[Digests] | None = Reloadable(lambda: (digest(TOKEN),), []) if tokens else None
        self.access = MonitorAccess(
            "127.0.0.1:9402", ["Gateway.example"], Logins("etherws-9402", found), clock=lambda: self.now
        )

    def cookie(self) -> str:
        """The cookie of who has logged in."""
        token = self.access.new_page().partition("token=")[2]
        ((name, value),) = self.access.log_in(request("/login"), token)
        assert name == "Set-Cookie"
        return value.partition(";")[0]

    def says(self, environ: dict[str, Any]) -> str:
        """The status of the refusal; empty if there is none."""
        try:
            self.access.check(environ)
        except Refused as exc:
            return exc.status[:3]
        return ""


def request(path: str, method: str = "GET", **changes: str) -> dict[str, Any]:
    """A request of another machine; None leaves a header out."""
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "REMOTE_ADDR": "192.0.2.7",
        "HTTP_HOST": "192.0.2.1:9402",
        "wsgi.url_scheme": "http",
        **changes,
    }


def basic(password: str, user: str = "any") -> str:
    """An Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def door() -> Door:
    """--monitor."""
    return Door()


PATHS = ["/", "/status", "/events", "/metrics", "/healthz", "/readyz", "/stream", "/history", "/page/page.js", "/none"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS", "TRACE", "CONNECT"])
@pytest.mark.parametrize("path", [*PATHS, "/kick", "/stop"])
def test_a_stranger_gets_401_and_nothing_else(door: Door, path: str, method: str) -> None:
    assert door.says(request(path, method)) == "401"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_programs_of_this_machine_may_read_a_little(door: Door, address: str) -> None:
    answers = {path: door.says(request(path, REMOTE_ADDR=address)) for path in PATHS}
    assert {path for path, status in answers.items() if not status} == {"/metrics", "/healthz", "/readyz"}
    assert door.says(request("/metrics", "HEAD", REMOTE_ADDR=address)) == ""
    assert door.says(request("/metrics", "POST", REMOTE_ADDR=address)) == "401"


@pytest.mark.parametrize("address", ["", "unix", "10.127.0.0.1", "fe80::1%eth0"])
def test_an_address_that_is_not_this_machines_is_a_strangers(door: Door, address: str) -> None:
    assert door.says(request("/metrics", REMOTE_ADDR=address)) == "401"


@pytest.mark.parametrize(
    "header", ["X_FORWARDED_FOR", "X_FORWARDED_HOST", "X_FORWARDED_PROTO", "FORWARDED", "VIA", "X_REAL_IP"]
)
def test_a_proxy_on_this_machine_is_not_its_client(door: Door, header: str) -> None:
    assert door.says(request("/metrics", **{"REMOTE_ADDR": "127.0.0.1", f"HTTP_{header}": "x"})) == "401"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("192.0.2.1:9402", ""),
        ("127.0.0.1", ""),
        ("[2001:db8::1]:9402", ""),
        ("[::1]", ""),
        ("localhost:1", ""),
        ("LOCALHOST", ""),
        ("gateway.example:9402", ""),
        ("evil.example", "421"),
        ("127.0.0.1.evil.example", "421"),
        ("localhost.evil.example:9402", "421"),
        ("gateway.example.", "421"),
        ("127.0.0.1,evil.example", "421"),
        ("evil.example, 127.0.0.1", "421"),
        ("user@127.0.0.1", "421"),
        ("[evil]", "421"),
        ("[::1", "421"),
        ("127.0.0.1:99999999", "421"),
        ("2130706433.", "421"),
        (" ", "421"),
    ],
)
def test_a_name_of_others_leads_nowhere(door: Door, host: str, status: str) -> None:
    """DNS rebinding: the page of another site has its name lead here."""
    assert door.says(request("/metrics", REMOTE_ADDR="127.0.0.1", HTTP_HOST=host)) == status
    assert door.says(request("/", HTTP_HOST=host, HTTP_COOKIE=door.cookie())) == status


def test_a_program_may_leave_the_host_out(door: Door) -> None:
    environ = request("/healthz", REMOTE_ADDR="127.0.0.1")
    del environ["HTTP_HOST"]
    assert door.says(environ) == ""


def test_who_is_logged_in_may_read_all(door: Door) -> None:
    cookie = door.cookie()
    assert {door.says(request(path, HTTP_COOKIE=cookie)) for path in PATHS} == {""}


def test_the_cookie_is_not_for_others(door: Door) -> None:
    token = door.access.new_page().partition("token=")[2]
    ((_, value),) = door.access.log_in(request("/login"), token)
    first, *attributes = value.split("; ")
    assert attributes == ["Path=/", "HttpOnly", "SameSite=Strict"]
    name, _, secret = first.partition("=")
    # Cookies of several servers on a machine must not replace each other.
    assert name == "etherws-9402"
    assert len(secret) >= 43
    assert secret not in token


JSON = {"CONTENT_TYPE": "application/json"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"HTTP_SEC_FETCH_SITE": "same-origin", **JSON}, ""),
        ({"HTTP_SEC_FETCH_SITE": "same-origin", "CONTENT_TYPE": "Application/JSON; charset=utf-8"}, ""),
        ({"HTTP_ORIGIN": "http://192.0.2.1:9402", **JSON}, ""),
        # Behind a reverse proxy that sends another Host; the browser knows better.
        ({"HTTP_ORIGIN": "https://proxy.example", "HTTP_SEC_FETCH_SITE": "same-origin", **JSON}, ""),
        (JSON, "403"),
        ({"HTTP_ORIGIN": "null", **JSON}, "403"),
        ({"HTTP_ORIGIN": "http://192.0.2.1", **JSON}, "403"),
        ({"HTTP_ORIGIN": "https://192.0.2.1:9402", **JSON}, "403"),
        ({"HTTP_ORIGIN": "http://evil.example", **JSON}, "403"),
        ({"HTTP_ORIGIN": "http://192.0.2.1:9402", "HTTP_SEC_FETCH_SITE": "cross-site", **JSON}, "403"),
        ({"HTTP_ORIGIN": "http://192.0.2.1:9402", "HTTP_SEC_FETCH_SITE": "same-site", **JSON}, "403"),
        ({"HTTP_ORIGIN": "http://192.0.2.1:9402", "HTTP_SEC_FETCH_SITE": "none", **JSON}, "403"),
        ({"HTTP_SEC_FETCH_SITE": "same-origin, cross-site", **JSON}, "403"),
        ({"HTTP_SEC_FETCH_SITE": "same-origin"}, "415"),
        ({"HTTP_SEC_FETCH_SITE": "same-origin", "CONTENT_TYPE": "text/plain"}, "415"),
        ({"HTTP_SEC_FETCH_SITE": "same-origin", "CONTENT_TYPE": "application/x-www-form-urlencoded"}, "415"),
        ({"HTTP_SEC_FETCH_SITE": "same-origin", "CONTENT_TYPE": "multipart/form-data; boundary=x"}, "415"),
    ],
)
def test_only_our_page_may_give_orders(door: Door, headers: dict[str, str], status: str) -> None:
    assert door.says(request("/kick", "POST", HTTP_COOKIE=door.cookie(), **headers)) == status
    assert door.says(request("/page", "POST", HTTP_COOKIE=door.cookie(), **headers)) == "403"
    # Without the login none of these helps.
    assert door.says(request("/kick", "POST", **headers)) in ("401", "403")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_sites_get_nothing(door: Door, site: str) -> None:
    cookie = door.cookie()
    for mode in ("cors", "no-cors", "websocket"):
        environ = request("/metrics", REMOTE_ADDR="127.0.0.1", HTTP_SEC_FETCH_SITE=site, HTTP_SEC_FETCH_MODE=mode)
        assert door.says(environ) == "403"
        assert door.says({**environ, "HTTP_COOKIE": cookie}) == "403"
    # A link there.
    link = {"HTTP_SEC_FETCH_SITE": site, "HTTP_SEC_FETCH_MODE": "navigate"}
    assert door.says(request("/", HTTP_COOKIE=cookie, **link)) == ""
    assert door.says(request("/kick", "POST", HTTP_COOKIE=cookie, **link)) == "403"


def test_a_one_time_token_counts_once(door: Door) -> None:
    token = door.access.new_page().partition("token=")[2]
    assert door.access.log_in(request("/login"), token)
    with pytest.raises(Refused, match=r"has been used, or is over a minute old; etherws page prints") as refused:
        door.access.log_in(request("/login"), token)
    assert refused.value.status == "401 Unauthorized"


def test_a_one_time_token_counts_for_a_minute(door: Door) -> None:
    tokens = [door.access.new_page().partition("token=")[2] for _ in range(2)]
    door.now += 60
    assert door.access.log_in(request("/login"), tokens[0])
    door.now += 0.1
    with pytest.raises(Refused):
        door.access.log_in(request("/login"), tokens[1])


def test_guesses_are_few(door: Door) -> None:
    token = door.access.new_page().partition("token=")[2]
    said = []
    for number in range(8):
        with pytest.raises(Refused) as refused:
            door.access.log_in(request("/login"), f"guess-{number}")
        said.append(refused.value.status[:3])
    assert said == ["401"] * 5 + ["429"] * 3
    assert dict(refused.value.headers) == {"Retry-After": "6"}
    # The right one still counts, also from this address: it may be of another user, or of a proxy.
    assert door.access.log_in(request("/login"), token)
    other = door.access.new_page().partition("token=")[2]
    assert door.access.log_in(request("/login", REMOTE_ADDR="198.51.100.1"), other)
    door.now += 5
    with pytest.raises(Refused, match="has been used"):
        door.access.log_in(request("/login"), "guess")


def test_a_token_of_the_file_may_only_read(door: Door) -> None:
    with_token = {"HTTP_AUTHORIZATION": basic(TOKEN)}
    assert {door.says(request(path, **with_token)) for path in PATHS} == {""}
    orders = {**with_token, "HTTP_SEC_FETCH_SITE": "same-origin", **JSON}
    assert {door.says(request(path, "POST", **orders)) for path in ("/kick", "/stop", "/drain", "/page")} == {"403"}


@pytest.mark.parametrize(
    "header",
    [basic("wrong"), basic(""), "Basic", "Basic !!", "Basic " + base64.b64encode(b"no colon").decode(), "Basic /w=="],
)
def test_a_wrong_token_is_refused_and_counted(door: Door, header: str) -> None:
    environ = request("/metrics", HTTP_AUTHORIZATION=header)
    assert [door.says(environ) for _ in range(6)] == ["401"] * 5 + ["429"]
    # Also the right one: or else guesses had no bound.
    assert door.says(request("/metrics", HTTP_AUTHORIZATION=basic(TOKEN))) == "429"
    assert door.says(request("/metrics", HTTP_AUTHORIZATION=basic(TOKEN), REMOTE_ADDR="198.51.100.2")) == ""


@pytest.mark.parametrize("tokens", [True, False])
def test_a_browser_asks_for_a_token_only_if_there_are_some(tokens: bool) -> None:
    for header in ({}, {"HTTP_AUTHORIZATION": "Bearer x"}):
        with pytest.raises(Refused) as refused:
            Door(tokens=tokens).access.check(request("/", **header))
        assert bool(refused.value.headers) is tokens
    assert Door(tokens=False).says(request("/", HTTP_AUTHORIZATION=basic(TOKEN))) == "401"


def test_the_control_socket_asks_nothing(door: Door) -> None:
    control = ControlAccess(door.access)
    control.check(request("/kick", "POST", HTTP_HOST="evil.example"))
    assert control.new_page().startswith("http://127.0.0.1:9402/login?token=")
    with pytest.raises(Refused, match="asks for no login"):
        control.log_in(request("/login"), "x")
    with pytest.raises(Refused, match="start etherws with --monitor 9402"):
        ControlAccess().new_page()
