"""Every error that etherws raises on purpose, under one root.

A message says what failed, on what, and what to try. Only cli/commands.py prints an error or exits because of one.
docs/process.rst lists the exit statuses: 1 for each error that has no other, 2 for a command line that click refuses,
and those below.

    EtherwsError
    +-- SettingsError          an option's value cannot be used
    |   +-- SystemdSlow        systemctl was not done in time; what it has begun goes on
    |   +-- CredentialsError   a password or token file cannot be read, used or changed
    |   +-- PolicyError        a policy file cannot be read or used
    |   +-- ConfigError        a configuration file cannot be read or used
    |   +-- InvitationError    a line of etherws init server cannot be used
    +-- TomlError              a text is not TOML; has the line
    +-- DeviceError            a TAP or bridge cannot be made, found or changed
    |   +-- DeviceLost         the TAP was deleted while it was in use
    +-- AlreadyLinked          another process links the same bridge to the same server
    +-- NoPort                 the server has no TAP for another client (HTTP 503)
    +-- WorkerError            none of the server's workers can be started
    +-- ChannelError           the port process, and a worker, cannot talk to each other
    +-- ListenError            the server cannot listen, or cannot use its certificate
    |   +-- NoSuchAddress      the name or the zone of its address cannot be found now
    +-- ProxyError             what a trusted reverse proxy says about its client cannot be used
    +-- ConnectError           the client's attempt to reach the server failed
    |   +-- NotAdmitted        the server refused the client's credentials
    |   +-- OtherKey           the server's key is not the pinned one
    |   +-- NoSuchLink         the server does not have the link that a further connection belongs to
    +-- ControlError           a process cannot be asked by its control socket
    |   +-- NotRunning         nobody listens there, or nothing runs on this machine
    |   +-- NotAllowed         this user may not ask it
    |   +-- NoAnswer           it does not answer in time
    +-- NoSuchClient           nobody has the name that an operator has given
    +-- DaemonError            the process cannot go on in the background
    +-- DemoError              a step of the demo failed
    +-- Refused                the opening handshake is refused, with an HTTP status
    |   +-- ForeignPage        a web page of another site
    |   +-- ClientGone         the client hung up while it waited for us
    +-- ProtocolError          the peer broke a rule of RFC 6455 or of the wire format; has the close code
    +-- ConnectionClosed       the WebSocket has ended; has the close code, if there was one
        +-- NetworkChanged     the machine's network has changed; connect again at once
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def some_of(names: Sequence[str], most: int) -> str:
    """The first `most` of the names for a message, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def printable(text: str) -> str:
    """A stranger's text for a message: at most 200 characters, without those that control a terminal or begin a new
    line in the log."""
    return "".join(char if char.isprintable() else "?" for char in text)[:200]


#: What to try when this process has no descriptor left (EMFILE). Each session needs two or three.
DESCRIPTORS_HINT = "allow more open files by LimitNOFILE in the systemd unit, or by ulimit -n"

#: What to try when this process may not change the network (EPERM).
NET_ADMIN_HINT = "run as root or with CAP_NET_ADMIN; a container needs --cap-add NET_ADMIN"


#: Exit status of a start with --wait whose time was over before the client was connected. The client goes on.
#: EX_TEMPFAIL of sysexits.h.
NOT_CONNECTED_STATUS = 75


class EtherwsError(Exception):
    """The root. ``str()`` gives a sentence for the user. `exit_status` is the process's, if the error ends it."""

    exit_status = 1


class SettingsError(EtherwsError):
    """An option's value cannot be used."""


class SystemdSlow(SettingsError):
    """systemctl was not done in time. What it has begun goes on."""


class CredentialsError(SettingsError):
    """A file of passwords or tokens, or an entry for it, cannot be used. The message shows no hash and no password."""


class PolicyError(SettingsError):
    """A policy file cannot be read, or has a mistake; for a mistake the message begins with FILE:LINE."""


class ConfigError(SettingsError):
    """A configuration file cannot be read, or has a mistake; for a mistake the message begins with FILE:LINE:COLUMN."""

    #: As click's own for a command line: an option stands in the wrong place, or has the wrong value.
    exit_status = 2


class InvitationError(SettingsError):
    """The line that etherws init client was given cannot be used. The message shows nothing of it."""


class TomlError(EtherwsError):
    """A text is not TOML. `line` is where the mistake is, counted from 1; the message does not name it. It names
    the `column`, which is 0 if it is not known."""

    def __init__(self, line: int, message: str, column: int = 0) -> None:
        super().__init__(message)
        self.line, self.column = line, column


class DeviceError(EtherwsError):
    """A TAP or a bridge cannot be made, found or changed."""


class DeviceLost(DeviceError):
    """The TAP was deleted while it was in use."""


class AlreadyLinked(EtherwsError):
    """Another process links the same bridge to the same server; a second link would make a loop."""

    #: EX_CANTCREAT of sysexits.h.
    exit_status = 73


class NoPort(EtherwsError):
    """The server has no TAP for another client; it answers 503."""


class WorkerError(EtherwsError):
    """None of the server's workers can be started."""


class ChannelError(EtherwsError):
    """The port process, and one of its workers, cannot talk to each other."""


class ListenError(EtherwsError):
    """The server cannot listen on its address, or cannot use its key and certificate."""


class NoSuchAddress(ListenError):
    """The address to listen on is a name that cannot be found now, or has a zone that is no interface now."""


class ProxyError(EtherwsError):
    """What a trusted reverse proxy says about its client cannot be used; the proxy's own address counts."""


class ConnectError(EtherwsError):
    """The client could not reach the server, or what answered is not an etherws server.

    `wait` is how many seconds the server asks the client to wait, 0 if it does not ask. `kind` is the same for errors
    that have the same reason: it is the message, without its numbers and without what the other side chose to say.
    """

    wait = 0.0

    def __init__(self, message: str, *, kind: str | None = None) -> None:
        """`kind` is the message without the words of the other side, if it has some."""
        super().__init__(message)
        self.kind = re.sub("[0-9]+", "0", message if kind is None else kind)


class NotAdmitted(ConnectError):
    """The server refused the client's credentials, or wants some and got none."""

    #: EX_NOPERM of sysexits.h.
    exit_status = 77


class OtherKey(ConnectError):
    """The key of the server's certificate is none of those that are pinned."""


class NoSuchLink(ConnectError):
    """A further connection of a link has reached a server that does not have the link."""


class NoSuchClient(EtherwsError):
    """No session, and no port that is kept, is of the client that was named, or several clients are meant."""


class ControlError(EtherwsError):
    """A process of etherws cannot be asked by its control socket, or what it answers is no answer."""


class NotRunning(ControlError):
    """Nobody listens at the control socket, or no process of etherws runs on this machine."""

    #: EX_UNAVAILABLE of sysexits.h.
    exit_status = 69


class NotAllowed(ControlError):
    """This user may not open the control socket."""

    #: EX_NOPERM of sysexits.h.
    exit_status = 77


class NoAnswer(ControlError):
    """The process has the control socket open, but does not answer in time."""

    #: EX_TEMPFAIL of sysexits.h.
    exit_status = 75


class DaemonError(EtherwsError):
    """The process cannot go on in the background, or another process has its PID file."""


class DemoError(EtherwsError):
    """A step of the demo failed, or this machine lacks what the demo needs."""


class Refused(EtherwsError):
    """The opening handshake is refused before the 101.

    `status` is the HTTP status line without the version ("400 Bad Request"), `headers` are the headers to send with it.
    `kind` is what refusals are counted by: a few words of ours, and none of a peer's. `warning` is what the log
    says, if the operator should know of it: it may tell more than the client is told.
    """

    def __init__(
        self,
        status: str,
        message: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        kind: str = "",
        warning: str = "",
    ) -> None:
        """`kind` is by default the status in words."""
        super().__init__(message)
        self.status = status
        self.headers = list(headers)
        self.kind = kind or status[4:].lower()
        self.warning = warning


class ForeignPage(Refused):
    """A web page that may not connect."""

    def __init__(self, kind: str, explanation: str, message: str) -> None:
        super().__init__("403 Forbidden", message, kind=kind, warning=explanation)


class ClientGone(Refused):
    """The client hung up while it waited for us. An answer would reach nobody."""

    def __init__(self) -> None:
        super().__init__("400 Bad Request", "the client hung up")


class ProtocolError(EtherwsError):
    """The peer broke a rule. `code` is the close code to send (RFC 6455, section 7.4.1)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ConnectionClosed(EtherwsError):
    """The WebSocket has ended.

    `code` is the peer's close code; None if it sent none, or if TCP ended without a Close frame. `reason` is what it
    said with it. If this side ends the connection, `code` is what the peer is to be told, and `tell` the words with it.
    """

    def __init__(self, message: str, code: int | None = None, reason: str = "", *, tell: str = "") -> None:
        super().__init__(message)
        self.code, self.reason, self.tell = code, reason, tell


class NetworkChanged(ConnectionClosed):
    """This machine's network has changed, and nothing arrives by the old connection. A new one can be made at once."""
