"""Which web pages may connect: by a browser's Origin, and where nothing else is asked, by its Host as well.

Pure. A browser opens a WebSocket to any server for any page, with the credentials that it has for the server, and says
in Origin whose page it is (RFC 6455, section 10.2). Programs that are no browsers send no Origin, or one that is not a
URL: they are not concerned. Read next: authenticate.py.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from etherws.errors import ForeignPage, printable


class Origins:
    """The origins whose pages may connect."""

    def __init__(self, allowed: Iterable[str], own_names: Callable[[], Iterable[str]]) -> None:
        """`allowed` is --allow-origin. `own_names` returns this machine's names; it may take long, and is called when
        they are needed."""
        self._allowed = frozenset(origin.lower().rstrip("/") for origin in allowed)
        self._allowed_hosts = frozenset(_host(origin) for origin in self._allowed) - {""}
        self._own_names = own_names

    def check(self, environ: Mapping[str, Any], *, login: bool) -> None:
        """Raise ForeignPage if the request is a page's that may not connect. `login`: the client needs a password, a
        token or a certificate."""
        origin = environ.get("HTTP_ORIGIN", "").strip(" \t").lower()
        # Browsers send a URL with a scheme, or null. etherws 0.2 sends a host alone, which no web page can send.
        if not origin or origin in self._allowed or "*" in self._allowed or not ("://" in origin or origin == "null"):
            return
        host = environ.get("HTTP_HOST", "").strip(" \t").lower()
        if not _same_site(origin, host):
            raise ForeignPage(
                "foreign origin",
                f"a page of {printable(origin)} was refused; --allow-origin would allow it",
                "pages of this origin may not connect; see --allow-origin",
            )
        # An attacker can have his own name resolve to this server's address, after the browser has loaded his page
        # ("DNS rebinding"). Then Origin and Host are both his. With TLS the browser has verified that the name is ours.
        if not login and environ.get("wsgi.url_scheme") != "https" and not self._is_ours(host):
            raise ForeignPage(
                "foreign host",
                f"a page was refused that calls this server {printable(host)!r}: that is no name of this machine, and"
                f" who owns it could use this server through the browsers of others. If the name is right, start the"
                f" server with --allow-origin {printable(origin)}; or let it ask for a password, a token or a"
                f" certificate. Behind a proxy that ends TLS, --trusted-proxy is enough",
                "pages may not connect by this name, which this server does not know; see --allow-origin",
            )

    def _is_ours(self, host: str) -> bool:
        """Whether the host is an address, which cannot be made to mean another machine, or a name of this machine."""
        name = _host(f"//{host}").removesuffix(".")
        if name == "localhost" or name in self._allowed_hosts:
            return True
        try:
            ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return name in {own.lower().removesuffix(".") for own in self._own_names() if own}
        return True


def _host(url: str) -> str:
    """The host in a URL; empty if it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _same_site(origin: str, host: str) -> bool:
    """Whether `origin` and the request's `host` are the same host and port."""
    try:
        page, here = urlsplit(origin), urlsplit(f"//{host}")
        # Behind a proxy that ends TLS the request's own scheme is unknown. The page's scheme gives the default port.
        default = {"http": 80, "https": 443}.get(page.scheme)
        return bool(page.hostname) and (page.hostname, page.port or default) == (here.hostname, here.port or default)
    except ValueError:
        return False
