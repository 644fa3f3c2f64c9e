"""Every error that etherws raises on purpose, under one root.

A message says what failed, on what, and what to try. Only cli/commands.py prints one or exits because of one.

    EtherwsError
    +-- SettingsError     an option's value cannot be used
    |   +-- CredentialsError  a password or token file cannot be read or changed
    |   +-- PolicyError   a policy file cannot be read or used
    +-- DeviceError       a TAP or bridge cannot be made or changed
    |   +-- DeviceLost    the TAP was deleted while it was in use
    +-- NoPort            the server has no TAP for one more client (HTTP 503)
    +-- Refused           the opening handshake is refused, with an HTTP status
    +-- ListenError       the server cannot listen, or cannot use its certificate
    +-- ProxyError        what a trusted reverse proxy says of its client cannot be used
    +-- ConnectError      the client's attempt to reach the server failed
    |   +-- NotAdmitted   the server wants other credentials than it got
    +-- DaemonError       the process cannot go on in the background
    +-- ProtocolError     the peer broke a rule of RFC 6455 or of the wire; carries the close code
    +-- ConnectionClosed        the WebSocket has ended; carries the close code, if there was one
"""

from __future__ import annotations

from collections.abc import Iterable


def printable(text: str) -> str:
    """A stranger's words, short and without what would drive a terminal or begin a line in a log."""
    return "".join(char if char.isprintable() else "?" for char in text)[:200]


class EtherwsError(Exception):
    """The root. ``str()`` of it is a sentence for the user; `exit_status` what the process ends with for it."""

    exit_status = 1


class SettingsError(EtherwsError):
    """An option's value cannot be used."""


class CredentialsError(SettingsError):
    """A file of passwords or tokens, or an entry for it, cannot be used. Shows neither hash nor password."""


class PolicyError(SettingsError):
    """A policy file cannot be read, or says what cannot be used; then the message begins with FILE:LINE."""


class DeviceError(EtherwsError):
    """A TAP or a bridge cannot be made, found or changed."""


class DeviceLost(DeviceError):
    """The TAP was deleted while it was in use."""


class NoPort(EtherwsError):
    """The server has no TAP for one more client; it answers 503."""


class ListenError(EtherwsError):
    """The server cannot listen on its address, or cannot use its key and certificate."""


class ProxyError(EtherwsError):
    """What a trusted reverse proxy says of its client makes no sense; the proxy's own address counts."""


class ConnectError(EtherwsError):
    """The client could not reach the server, or what answered is no etherws server.

    `wait` is how many seconds the server asks to be left alone for.
    """

    wait = 0.0


class NotAdmitted(ConnectError):
    """The server refused the client's credentials, or its lack of them."""

    #: EX_NOPERM of sysexits.h.
    exit_status = 77


class DaemonError(EtherwsError):
    """The process cannot go on in the background, or its PID file is taken."""


class Refused(EtherwsError):
    """The opening handshake is refused before the 101.

    `status` is the HTTP status line without the version ("400 Bad Request"), `headers` what must go
    with it.
    """

    def __init__(self, status: str, message: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = list(headers)


class ProtocolError(EtherwsError):
    """The peer broke a rule. `code` is the close code that it is told (RFC 6455, section 7.4.1)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ConnectionClosed(EtherwsError):
    """The WebSocket has ended.

    `code` is the peer's close code; None when it gave none, or when TCP ended without a Close.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class NetworkChanged(ConnectionClosed):
    """This machine's network has changed, and by the old way nothing comes any more: a new one can be had at once."""
