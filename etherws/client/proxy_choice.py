"""Choose the way to the server: directly, or through a proxy. Options and environment count as with curl.

Pure: looks no name up and connects to nothing. Read next: dial.py, which connects.
Sources: curl(1), --proxy, --noproxy and ENVIRONMENT; RFC 3986, section 3.2.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from etherws.addresses import authority
from etherws.errors import SettingsError

#: Scheme of a proxy's URL: the port if the URL has none (as with curl). With both SOCKS5 schemes the proxy looks the
#: server's name up.
PORTS = {"http": 1080, "https": 443, "socks5": 1080, "socks5h": 1080}

#: Bytes of a user name, and of a password: RFC 1929 has one byte for each length.
CREDENTIAL_MAX = 255

_HOST = re.compile(r"[\w.:%-]+", re.ASCII)


@dataclass(frozen=True)
class Proxy:
    """A proxy: `scheme` is http, https or socks5; `source` is the option or variable that its URL comes from."""

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
        """The proxy of a URL, [SCHEME://][USER:PASSWORD@]HOST[:PORT]. Raises SettingsError, which shows no password."""
        shown = f"{source} {url.rpartition('@')[2]!r}"
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
            user, password = (value and unquote(value, errors="strict") for value in (parts.username, parts.password))
        except ValueError:
            raise SettingsError(f"{shown} is not a proxy's URL; write http://HOST:PORT") from None
        if parts.scheme not in PORTS:
            raise SettingsError(f"{shown}: unknown kind of proxy; choose one of {', '.join(PORTS)}")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise SettingsError(f"{shown} has a path; write {parts.scheme}://HOST:PORT")
        scheme = parts.scheme.removesuffix("h")
        for value in (user or "", password or ""):
            if not value.isprintable():
                raise SettingsError(f"{shown}: its user or password has an unprintable character")
            if len(value.encode()) > CREDENTIAL_MAX:
                raise SettingsError(f"{shown}: its user or password is longer than {CREDENTIAL_MAX} bytes")
        if scheme != "socks5" and ":" in (user or ""):
            raise SettingsError(f"{shown}: its user has a colon, which HTTP does not allow (RFC 7617)")
        return cls(
            scheme, _checked_host(parts.hostname, shown), port or PORTS[parts.scheme], user, password or "", source
        )


@dataclass(frozen=True)
class ProxyChoice:
    """The options and the environment that decide how to reach a server.

    `proxy` is a URL, or "" for no proxy even if the environment names one. `noproxy` lists hosts that are reached
    without a proxy. `connect_to` is a host and port to connect to instead of the URI's. `family` is 4 or 6 for only
    that version of IP, 0 for both. `environ` is the environment.
    """

    proxy: str | None = field(default=None, repr=False)
    noproxy: str | None = None
    connect_to: tuple[str, int] | None = None
    family: int = 0
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def proxy_for(self, host: str, secure: bool) -> tuple[Proxy | None, str]:
        """The proxy to use for `host` of a ws:// URI, or of a wss:// URI if `secure`; None for a direct connection.

        Also the reason, as text for the log; empty if neither an option nor a variable names a proxy. Raises
        SettingsError if the proxy's URL cannot be used.
        """
        url, source = self.proxy, "--proxy"
        if url is None:
            url, source = _first_set(self.environ, *_proxy_variables(secure))
        if not url:
            return None, ""
        noproxy, exception = self.noproxy, "--noproxy"
        if noproxy is None:
            noproxy, exception = _first_set(self.environ, "no_proxy", "NO_PROXY")
        if needs_no_proxy(host, noproxy):
            return None, f"directly to {host}: {exception} excludes it from the proxy in {source}"
        proxy = Proxy.parse(url, source)
        # The host becomes a part of a request to the proxy.
        _checked_host(host, f"the URI's {host!r}")
        return proxy, f"through the proxy {proxy} (from {source})"


def _proxy_variables(secure: bool) -> tuple[str, ...]:
    # Without HTTP_PROXY: in a CGI program it holds the header "Proxy" of a request, which a stranger sent.
    own = ("wss_proxy", "WSS_PROXY", "https_proxy", "HTTPS_PROXY") if secure else ("ws_proxy", "WS_PROXY", "http_proxy")
    return (*own, "all_proxy", "ALL_PROXY")


def _first_set(environ: Mapping[str, str], *names: str) -> tuple[str, str]:
    """The value and the name of the first variable that is set and not empty."""
    return next(((environ[name], name) for name in names if environ.get(name)), ("", ""))


def needs_no_proxy(host: str, names: str) -> bool:
    """Whether a no_proxy list matches `host`. It has hosts and domains (with all names below them), addresses and
    networks; or it is only ``*``, which matches every host."""
    if names.strip() == "*":
        return True
    address, host = _ip_address(host), host.lower().rstrip(".")
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
    """The host and port in HOST:PORT, with an IPv6 address in brackets. Raises SettingsError."""
    shown = f"--connect-to {text!r}"
    try:
        parts = urlsplit(f"//{text}")
        if parts.port and parts.netloc == text and parts.username is None:
            return _checked_host(parts.hostname, shown), parts.port
    except ValueError:
        pass
    raise SettingsError(f"{shown}: write HOST:PORT")


def _checked_host(name: str | None, shown: str) -> str:
    """The host in ASCII (IDNA). Raises SettingsError, beginning with `shown`."""
    try:
        host = (name or "").encode("idna").decode()
    except UnicodeError:
        host = ""
    if not _HOST.fullmatch(host):
        raise SettingsError(f"{shown} has no valid host")
    return host


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
