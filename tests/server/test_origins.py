"""Which pages may connect. Over real connections: tests/system/test_login.py."""

from __future__ import annotations

import pytest

from etherws.errors import ForeignPage
from etherws.server.origins import Origins
from tests.lab.environ import environ


def refused(origins: Origins, origin: str | None, host: str, *, login: bool = False, scheme: str = "http") -> str:
    """The kind of the refusal; empty if there is none."""
    request = environ(HTTP_ORIGIN=origin, HTTP_HOST=host)
    request["wsgi.url_scheme"] = scheme
    try:
        origins.check(request, login=login)
    except ForeignPage as exc:
        assert exc.status == "403 Forbidden"
        assert "--allow-origin" in exc.warning
        return exc.kind
    return ""


@pytest.mark.parametrize("login", [False, True])
def test_a_page_of_another_site_is_refused_whatever_is_asked(login: bool) -> None:
    origins = Origins((), lambda: ("hv1",))
    for origin in ("https://evil.example", "null", "http://", "http://[::1", "http://hv1:port", "http://hv1:8080"):
        assert refused(origins, origin, "hv1", login=login) == "foreign origin", origin


def test_no_browser_is_no_matter() -> None:
    origins = Origins((), lambda: ())
    for origin in (None, "", "  ", "192.0.2.1:80"):
        assert refused(origins, origin, "evil.example") == ""


def test_a_named_origin_may_use_any_host() -> None:
    origins = Origins(("https://Lab.example/", "null"), lambda: ())
    assert refused(origins, "https://lab.example", "evil.example") == ""
    assert refused(origins, "null", "evil.example") == ""
    assert refused(Origins(("*",), lambda: ()), "http://evil.example", "evil.example") == ""


def test_an_open_server_goes_by_its_names() -> None:
    origins = Origins(("https://lab.example",), lambda: ("hv1", "HV1.example.org.", ""))
    for host in ("127.0.0.1", "[fe80::1]:8080", "localhost:81", "hv1", "hv1.example.org.:80", "lab.example:8080"):
        assert refused(origins, f"http://{host}", host) == "", host
    for host in ("evil.example", "hv1.evil.example", "127.1", "."):
        assert refused(origins, f"http://{host}", host) == "foreign host", host


def test_who_logs_in_or_has_tls_is_not_fooled_by_a_name() -> None:
    origins = Origins((), lambda: ())
    assert refused(origins, "http://evil.example", "evil.example", login=True) == ""
    assert refused(origins, "https://lan.example", "lan.example", scheme="https") == ""


def test_an_allowed_origin_that_is_no_url_allows_itself_only() -> None:
    origins = Origins(("http://[::1",), lambda: ())
    assert refused(origins, "http://[::1", "hv1") == ""
    assert refused(origins, "http://evil.example", "evil.example") == "foreign host"
