"""The secrets of ``etherws client``: which ones the options and the environment give, and that nobody else sees them.

What is secret in the options is hidden from ``ps``, also in the next image of the process. A password that is given
nowhere is asked for on the terminal, once. commands.py uses this. Read next: client/credentials.py,
cli/process/process_image.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from etherws.cli.process import process_image
from etherws.client.credentials import (
    Credentials,
    hidden,
    hide_from_process_list,
    password_in_url,
    secrets_in_environ,
    split_user,
)
from etherws.errors import SettingsError


def hide_secrets(uris: Sequence[str], headers: Sequence[str], options: dict[str, Any]) -> None:
    """Hide from ``ps`` what may be secret in the options."""
    password = split_user(options["user"] or "")[1]
    secrets = [*map(password_in_url, (*uris, options["proxy"] or "")), password]
    hide_from_process_list(secrets, headers)
    process_image.this().visible = hidden(process_image.this().arguments, secrets, headers)


def credentials(options: dict[str, Any], user: str | None, password: str | None) -> Credentials:
    """The client's credentials, from options, URI, environment or terminal. Options come before the URI's `user` and
    `password`."""
    user_option, password_file, token_file = options["user"], options["password_file"], options["token_file"]
    if user_option is not None:
        user, password = split_user(user_option)
    environ_password, environ_token = secrets_in_environ(os.environ)
    if password_file or token_file:
        password = None
    elif user is not None and password is None:
        password = environ_password if environ_password is not None else _ask_password(user)
    token = None if user is not None or token_file else environ_token
    return Credentials(user, password, password_file, token, token_file)


def _ask_password(user: str) -> str:
    if (typed := process_image.this().typed(user)) is not None:
        return typed
    if sys.stdin is None or not sys.stdin.isatty():
        raise SettingsError(f"no password for the user {user!r}; give --password-file, or ETHERWS_CLIENT_PASSWORD")
    password = str(click.prompt(f"Password of {user}", hide_input=True, err=True))
    process_image.this().note_typed(user, password)
    return password
