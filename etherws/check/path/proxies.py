"""The proxy on the way: which one is chosen and why, and whether it connects us to the server.

The choice is client/proxy_choice.py's, and the words of its refusals are those of client/proxies.py. Read next:
check/network.py, the caller.
"""

from __future__ import annotations

from collections.abc import Generator
from time import monotonic
from typing import Any

import gevent

from etherws.addresses import authority
from etherws.check.findings import Finding, Verdict
from etherws.check.path.names import milliseconds
from etherws.check.path.said import failed
from etherws.check.path.trace import OneAddress, Target
from etherws.client.proxy_choice import Proxy
from etherws.errors import ConnectError, SettingsError


def chosen(target: Target) -> Generator[Finding, None, Proxy | None]:
    """Say which proxy is used, and why; return it, None for a direct connection. Raises SettingsError if the one that
    is named cannot be used."""
    choice, uri = target.proxy_choice, target.uri
    try:
        proxy, reason = choice.proxy_for(uri.host, uri.secure)
    except SettingsError as exc:
        yield failed("proxy", exc)
        raise
    data = {"proxy": str(proxy) if proxy else None, "source": proxy.source if proxy else None}
    hint = _unused(target) if proxy is None and not reason else ""
    verdict = Verdict.NOTE if hint else Verdict.OK
    yield Finding("proxy", reason or "none: neither an option nor a variable names one", verdict, hint, data)
    return proxy


def _unused(target: Target) -> str:
    """The variables that name a proxy, but not for this URI."""
    environ = target.proxy_choice.environ
    if target.proxy_choice.proxy == "":
        return ""
    if target.uri.secure and environ.get("http_proxy"):
        return "http_proxy is set, but counts for ws:// only: set https_proxy if the proxy is to be used for wss://"
    if not target.uri.secure and (environ.get("https_proxy") or environ.get("HTTPS_PROXY")):
        return "https_proxy is set, but counts for wss:// only: set http_proxy if the proxy is to be used for ws://"
    if not target.uri.secure and environ.get("HTTP_PROXY"):
        return "HTTP_PROXY does not count, for safety in CGI programs: write http_proxy"
    return ""


def through(target: Target, proxy: Proxy, address: Any) -> Generator[Finding, None, bool]:
    """Ask the proxy at `address` for a connection to the server; return whether it has made one."""
    uri, begun = target.uri, monotonic()
    host, port = target.proxy_choice.connect_to or (uri.host, uri.port)
    data: dict[str, Any] = {"proxy": str(proxy), "source": proxy.source}
    silence = ConnectError(
        f"the proxy {proxy}: no answer within {target.timeout:g} s; is that a proxy of the kind {proxy.scheme}://, and"
        f" does it reach {authority(host, port)}?"
    )
    try:
        with gevent.Timeout(target.timeout, silence):
            OneAddress(target.proxy_choice, address).dial(uri.host, uri.port, uri.secure, uri.zone).close()
    except ConnectError as exc:
        yield failed("proxy", exc, data={**data, "error": str(exc)})
        return False
    took = monotonic() - begun
    data["seconds"] = round(took, 4)
    yield Finding("proxy", f"it connects to {authority(host, port)} in {milliseconds(took)}", data=data)
    return True
