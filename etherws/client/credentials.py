"""Who the client says it is: user and password, or a token, and where they come from.

A secret is never part of a repr, an error or the log. What lies in a file is read at each attempt to connect, so that a
new password needs no restart.
"""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from setproctitle import setproctitle

from etherws.errors import SettingsError

#: Bytes of a file with a password or token. The server takes no longer ones.
SECRET_MAX = 1024


@dataclass(frozen=True, repr=False)
class Login:
    """Credentials: `user` with a password, or a token; each secret as it is, or the name of a file with it."""

    user: str | None = None
    password: str | None = None
    password_file: str | None = None
    token: str | None = None
    token_file: str | None = None

    def __post_init__(self) -> None:
        if self.user is not None and (":" in self.user or not self.user):
            raise SettingsError(f"--user {self.user!r}: a user's name is not empty and has no colon")
        if self.user is not None and (self.token or self.token_file):
            raise SettingsError("a user's name and a token are two ways to log in; leave one of them out")
        if self.user is None and (self.password or self.password_file):
            raise SettingsError("a password needs a user: give --user NAME")
        self.authorization()

    def __bool__(self) -> bool:
        return bool(self.user or self.token or self.token_file)

    def authorization(self) -> str | None:
        """The value of the Authorization header (RFC 7617, RFC 6750); None for no credentials.

        Raises SettingsError if a file cannot be used.
        """
        if self.user is not None:
            password = _secret("--password-file", self.password_file) if self.password_file else self.password or ""
            return "Basic " + base64.b64encode(f"{self.user}:{password}".encode()).decode()
        token = _secret("--token-file", self.token_file) if self.token_file else self.token
        if token and not all("!" <= char <= "~" for char in token):
            raise SettingsError("the token has characters that no token has; was the right file named?")
        return f"Bearer {token}" if token else None


def split(text: str) -> tuple[str, str | None]:
    """NAME[:PASSWORD] in two."""
    name, colon, password = text.partition(":")
    return name, password if colon else None


def password_in(url: str) -> str | None:
    """The password in a URL's user information, as it is written there; whatever could be one if it is malformed."""
    user, _, _ = url.partition("://")[2].rpartition("@")
    return split(user)[1]


def hide(secrets: Iterable[str | None]) -> None:
    """Take secrets that were given on the command line out of it, where everybody on this machine can read it
    (proc(5), cmdline). Whoever looked before saw them."""
    with open("/proc/self/cmdline", "rb") as file:
        arguments = [os.fsdecode(argument) for argument in file.read().split(b"\0")[:-1]]
    hidden = arguments
    for secret in filter(None, secrets):
        hidden = [argument.replace(secret, "xxx") for argument in hidden]
    if hidden != arguments:
        setproctitle(shlex.join(hidden))


def from_environ(environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The password and the token in ETHERWS_CLIENT_PASSWORD and ETHERWS_CLIENT_TOKEN, which are no options."""
    return environ.get("ETHERWS_CLIENT_PASSWORD") or None, environ.get("ETHERWS_CLIENT_TOKEN") or None


def _secret(option: str, path: str) -> str:
    """The first line of a file."""
    try:
        with open(path, encoding="utf-8") as file:
            line = file.readline(SECRET_MAX + 1).rstrip("\r\n")
    except OSError as exc:
        raise SettingsError(f"cannot read {option} {path}: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise SettingsError(f"cannot use {option} {path}: it is not UTF-8") from None
    if not line or len(line) > SECRET_MAX:
        raise SettingsError(f"cannot use {option} {path}: its first line must have 1 to {SECRET_MAX} characters")
    return line
