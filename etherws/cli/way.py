"""What the client's options say about the way to a server: proxy, TLS, headers. For ``client`` and for ``check``.

Nothing is opened here but files that options name. Read next: options.py; login.py, the credentials;
client/attempt.py, which goes the way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import click
from websockets.uri import WebSocketURI

from etherws.client.credentials import read_headers
from etherws.client.proxy_choice import ProxyChoice, parse_connect_to
from etherws.errors import SettingsError
from etherws.settings import Trust, parse_header


@dataclass(frozen=True)
class Way:
    """The same for all servers of one client."""

    proxy_choice: ProxyChoice
    trust: Trust
    headers: list[tuple[str, str]]


def way_of(options: dict[str, Any], uris: Iterable[WebSocketURI]) -> Way:
    """The way to these servers that the options of the client, and the environment, say. Raises SettingsError, also if
    a pin is given and a server is reached without TLS, where it would count for nothing; and click.UsageError."""
    from etherws.access.certificates import parse_pins

    pins = options["pinnedpubkey"]
    if pins and not all(uri.secure for uri in uris):
        raise SettingsError("--pinnedpubkey needs TLS: a server at ws:// shows no key; use wss://")
    chosen = {field.name: options[field.name] for field in fields(Trust) if field.name in options}
    return Way(
        _proxy_choice(**options),
        Trust(**chosen, pins=parse_pins(pins) if pins else frozenset()),
        [parse_header(line) for text in options["header"] for line in read_headers(text)],
    )


def _proxy_choice(
    *, proxy: str | None, noproxy: str | None, connect_to: str | None, ipv4: bool, ipv6: bool, **_: Any
) -> ProxyChoice:
    if ipv4 and ipv6:
        raise click.UsageError("give --ipv4 or --ipv6, not both")
    target = parse_connect_to(connect_to) if connect_to else None
    return ProxyChoice(proxy, noproxy, target, 4 if ipv4 else 6 if ipv6 else 0, os.environ)
