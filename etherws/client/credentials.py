"""The client's credentials: a user and password, or a token, and where they come from.

A secret is never part of a repr, an error or the log. Files are read again at each attempt to connect, so that a new
password needs no restart. Read next: attempt.py, which sends the Authorization header.
"""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from setproctitle import setproctitle

from etherws.errors import SettingsError
from etherws.small_files import read_file

#: Characters of a password or token in a file. The server accepts no longer ones.
SECRET_MAX = 1024

#: Bytes of a file of headers: no server takes a longer request.
HEADER_FILE_MAX = 64 * 1024


@dataclass(frozen=True, repr=False)
class Credentials:
    """`user` with a password, or a token. Each secret is given itself, or as the name of a file that holds it.

    Raises SettingsError if they do not go together, or if a file cannot be used.
    """

    user: str | None = None
    password: str | None = None
    password_file: str | None = None
    token: str | None = None
    token_file: str | None = None

    def __post_init__(self) -> None:
        if self.user is not None and (":" in self.user or not self.user):
            raise SettingsError(f"--user {self.user!r}: a user name must not be empty and must have no colon")
        if self.user is not None and (self.token or self.token_file):
            raise SettingsError("a user name and a token are two ways to log in; use only one of them")
        if self.user is None and (self.password or self.password_file):
            raise SettingsError("a password needs a user: give --user NAME")
        self.authorization()

    def __bool__(self) -> bool:
        return bool(self.user or self.token or self.token_file)

    def authorization(self) -> str | None:
        """The value of the Authorization header (RFC 7617, RFC 6750); None without credentials.

        Raises SettingsError if a file cannot be used.
        """
        if self.user is not None:
            password = self.password or ""
            if self.password_file:
                password = _read_secret("--password-file", self.password_file)
            return "Basic " + base64.b64encode(f"{self.user}:{password}".encode()).decode()
        token = _read_secret("--token-file", self.token_file) if self.token_file else self.token
        if token and not all("!" <= char <= "~" for char in token):
            raise SettingsError("the token has characters that no token can have; is it the right file?")
        if token and ":sha256:" in token:
            raise SettingsError(
                "the token is an entry of the server's file, which has only its hash; the client needs the token"
                " itself, which etherws passwd --token has printed"
            )
        return f"Bearer {token}" if token else None


def split_user(text: str) -> tuple[str, str | None]:
    """The user and the password in NAME[:PASSWORD]; None for no password."""
    name, colon, password = text.partition(":")
    return name, password if colon else None


def password_in_url(url: str) -> str | None:
    """The password in a URL, as it is written there. If the URL is malformed: what may be the password. A proxy's URL
    may have no scheme."""
    user, _, _ = (url.partition("://")[2] or url).rpartition("@")
    return split_user(user)[1]


def hide_from_process_list(secrets: Iterable[str | None], headers: Iterable[str] = ()) -> None:
    """Replace secrets, and the values of headers, in this process's command line, which every user of this machine can
    read (proc(5), cmdline).

    A program that read it before this call has seen them.
    """
    with open("/proc/self/cmdline", "rb") as file:
        arguments = [os.fsdecode(argument) for argument in file.read().split(b"\0")[:-1]]
    shown = hidden(arguments, secrets, headers)
    if shown != arguments:
        setproctitle(shlex.join(shown))


def hidden(arguments: Iterable[str], secrets: Iterable[str | None], headers: Iterable[str] = ()) -> list[str]:
    """The arguments with something else in place of the secrets and of the values of headers."""
    shown = list(arguments)
    for secret in filter(None, secrets):
        shown = [argument.replace(secret, "xxx") for argument in shown]
    for header in filter(None, headers):
        # As a whole: a value may be as short as "1". Without a colon nobody knows what it was meant to be.
        name, colon, _ = header.partition(":")
        shown = [argument.replace(header, f"{name}: xxx" if colon else "xxx") for argument in shown]
    return shown


def secrets_in_environ(environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The password in ETHERWS_CLIENT_PASSWORD and the token in ETHERWS_CLIENT_TOKEN. No options belong to them."""
    return environ.get("ETHERWS_CLIENT_PASSWORD") or None, environ.get("ETHERWS_CLIENT_TOKEN") or None


def read_headers(text: str) -> list[str]:
    """The headers in a value of ``--header``: the one that it is, or each line of a file for @FILE, as with curl.

    Raises SettingsError if the file cannot be used.
    """
    if not text.startswith("@"):
        return [text]
    lines = _decoded("--header", text, _read("--header", text[1:], HEADER_FILE_MAX)).splitlines()
    return [line for line in lines if line]


def _read_secret(option: str, path: str) -> str:
    """The first line of a file. Raises SettingsError."""
    # In UTF-8 a character has up to four bytes.
    line = _read(option, path, 4 * SECRET_MAX + 1).partition(b"\n")[0].rstrip(b"\r")
    text = _decoded(option, path, line[: 4 * SECRET_MAX])
    if not text or len(text) > SECRET_MAX or len(line) > 4 * SECRET_MAX:
        raise SettingsError(f"cannot use {option} {path}: its first line must have 1 to {SECRET_MAX} characters")
    return text


def _read(option: str, path: str, size: int) -> bytes:
    try:
        return read_file(path, size)
    except OSError as exc:
        raise SettingsError(f"cannot read {option} {path}: {exc.strerror}") from exc


def _decoded(option: str, path: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise SettingsError(f"cannot use {option} {path}: it is not UTF-8") from None
