"""Whose request it is, behind reverse proxies: says once what is wrong with their headers.

forwarded.py reads the headers. application.py calls this first for each request. Read next: forwarded.py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, MutableMapping
from typing import Any

from etherws.addresses import Networks
from etherws.errors import ProxyError
from etherws.server import forwarded
from etherws.server.authenticate import address

log = logging.getLogger(__name__)


class TrustedProxies:
    """The reverse proxies whose headers name the client."""

    def __init__(self, networks: Iterable[str]) -> None:
        """`networks` is the setting trusted_proxy."""
        self._trusted = Networks(networks)
        self._warned_of_headers = self._warned_of_proxy = False

    def follow(self, environ: MutableMapping[str, Any]) -> None:
        """From here on REMOTE_ADDR and wsgi.url_scheme are the client's, also behind trusted proxies."""
        try:
            forwarded.follow(environ, self._trusted)
        except ProxyError as exc:
            # Once only: a proxy that is configured wrongly does it with each request.
            level = logging.DEBUG if self._warned_of_headers else logging.WARNING
            log.log(level, "the proxy %s: %s", address(environ), exc)
            self._warned_of_headers = True
        if environ.get(forwarded.UNTRUSTED_PROXY) and not self._warned_of_proxy:
            # Once only: most proxies send these headers with each request.
            self._warned_of_proxy = True
            log.warning(
                "%s names other clients in X-Forwarded-For or Forwarded, as a reverse proxy does, but is not trusted:"
                " all its clients count as one, so that the wrong passwords of one lock out all. If it is your proxy,"
                " name it by --trusted-proxy; see docs/reverse-proxies.rst",
                address(environ),
            )
