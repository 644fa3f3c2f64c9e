"""Which way to the server: straight, or through a proxy, by the options and the environment, as curl decides it.

Pure: looks no name up and connects to nothing. Read next: dial.py.
Sources: curl(1), --proxy, --noproxy and ENVIRONMENT; RFC 3986, section 3.2.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from etherws.errors import SettingsError

#: Scheme of a proxy's URL: the port where the URL has none (curl's choice). With either of the last two the proxy looks
#: the server's name up.
PORTS = {"http": 1080, "https": 443, "socks5": 1080, "socks5h": 1080}

#: RFC 1929 has one byte for the length of either.
CREDENTIAL_MAX = 255

_HOST = re.compile(r"[\w.:%-]+", re.ASCII)


@dataclass(frozen=True)
class Proxy:
    """A proxy: `scheme` is http, https or socks5; `source` names the option or the variable that it comes from."""

    scheme: str
    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)
    source: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{authority(self.host, self.port)}"

    @classmethod
    def parse(cls, url: str, source: str) -> Proxy:
        """A proxy by its URL, [SCHEME://][USER:PASSWORD@]HOST[:PORT]. Raises SettingsError, which shows no password."""
        shown = f"{source} {url.rpartition('@')[2]!r}"
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
            user, password = (value and unquote(value, errors="strict") for value in (parts.username, parts.password))
        except ValueError:
            raise SettingsError(f"{shown} is no URL of a proxy; write http://HOST:PORT") from None
        if parts.scheme not in PORTS:
            raise SettingsError(f"{shown}: no proxy of that kind; choose {', '.join(PORTS)}")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise SettingsError(f"{shown} has a path; write {parts.scheme}://HOST:PORT")
        scheme = parts.scheme.removesuffix("h")
        for value in (user or "", password or ""):
            if not value.isprintable():
                raise SettingsError(f"{shown}: there is an unprintable character in its user or password")
            if len(value.encode()) > CREDENTIAL_MAX:
                raise SettingsError(f"{shown}: its user or password is longer than {CREDENTIAL_MAX} bytes")
        if scheme != "socks5" and ":" in (user or ""):
            raise SettingsError(f"{shown}: there is a colon in its user, which HTTP does not allow (RFC 7617)")
        return cls(scheme, _host(parts.hostname, shown), port or PORTS[parts.scheme], user, password or "", source)


@dataclass(frozen=True)
class Route:
    """What the user says about the way: `proxy` a URL, or "" for none whatever the environment says; `noproxy` hosts
    that are reached without; `connect_to` what is connected to instead of the URI's host and port; `family` 4 or 6 to
    use only that version of IP; `environ` the environment."""

    proxy: str | None = field(default=None, repr=False)
    noproxy: str | None = None
    connect_to: tuple[str, int] | None = None
    family: int = 0
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def through(self, host: str, secure: bool) -> tuple[Proxy | None, str]:
        """The proxy on the way to `host` of a ws:// URI, or wss:// if `secure`; and why, in words for the log, empty
        where nobody named a proxy. Raises SettingsError when its URL cannot be used.
        """
        url, source = self.proxy, "--proxy"
        if url is None:
            url, source = _first(self.environ, *_variables(secure))
        if not url:
            return None, ""
        noproxy, excepted_by = self.noproxy, "--noproxy"
        if noproxy is None:
            noproxy, excepted_by = _first(self.environ, "no_proxy", "NO_PROXY")
        if excepted(host, noproxy):
            return None, f"straight to {host} in spite of {source}, by {excepted_by}"
        proxy = Proxy.parse(url, source)
        # It becomes a part of a request.
        _host(host, f"the URI's {host!r}")
        return proxy, f"through the proxy {proxy}, by {source}"


def _variables(secure: bool) -> tuple[str, ...]:
    # HTTP_PROXY is left out: to a CGI program that is what a stranger sent as the header Proxy.
    own = ("wss_proxy", "WSS_PROXY", "https_proxy", "HTTPS_PROXY") if secure else ("ws_proxy", "WS_PROXY", "http_proxy")
    return (*own, "all_proxy", "ALL_PROXY")


def _first(environ: Mapping[str, str], *names: str) -> tuple[str, str]:
    """The first of the variables that is set and not empty, and its name."""
    return next(((environ[name], name) for name in names if environ.get(name)), ("", ""))


def excepted(host: str, names: str) -> bool:
    """Whether `host` is among the names: hosts, domains with all below them, addresses, networks, or only a ``*``."""
    if names.strip() == "*":
        return True
    address, host = _address(host), host.lower().rstrip(".")
    for name in re.split(r"[\s,]+", names.lower()):
        if address:
            try:
                if address in ipaddress.ip_network(name.strip("[]"), strict=False):
                    return True
            except ValueError:
                continue
        elif name.strip(".") and f".{host}".endswith("." + name.strip(".")):
            return True
    return False


def parse_connect_to(text: str) -> tuple[str, int]:
    """HOST:PORT, an IPv6 address in brackets. Raises SettingsError."""
    shown = f"--connect-to {text!r}"
    try:
        parts = urlsplit(f"//{text}")
        if parts.port and parts.netloc == text and parts.username is None:
            return _host(parts.hostname, shown), parts.port
    except ValueError:
        pass
    raise SettingsError(f"{shown}: write HOST:PORT")


def authority(host: str, port: int) -> str:
    """HOST:PORT as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host(name: str | None, shown: str) -> str:
    try:
        host = (name or "").encode("idna").decode()
    except UnicodeError:
        host = ""
    if not _HOST.fullmatch(host):
        raise SettingsError(f"{shown} names no host")
    return host


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
