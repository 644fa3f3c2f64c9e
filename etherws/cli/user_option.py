"""The type of --run-as: a user of this machine, and a group. Read next: cli/process/run_as.py."""

from __future__ import annotations

import grp
import pwd
from typing import Any, NamedTuple

import click

#: The largest number of a user or group: (uid_t) -1 stands for none (setresuid(2)).
_NUMBER_MAX = 2**32 - 2


class User(NamedTuple):
    """A user and a group, by number, and as the log names them."""

    name: str
    user: int
    group: int


class UserName(click.ParamType[User]):
    """``USER`` or ``USER:GROUP``, by names or numbers."""

    name = "user"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> User:
        """Look the names up."""
        if isinstance(value, User):
            return value
        text = str(value)
        name, colon, group_name = text.partition(":")
        if not name or (colon and not group_name):
            self.fail(f"{text!r} names no user; write USER or USER:GROUP", param, ctx)
        try:
            found = pwd.getpwuid(_number(name)) if name.isdecimal() else pwd.getpwnam(name)
        except KeyError:
            if not (name.isdecimal() and colon):
                hint = "give its group too, as USER:GROUP" if name.isdecimal() else "adduser --system makes one"
                self.fail(f"this machine has no user {name!r}; {hint}", param, ctx)
            found = None
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        user = found.pw_uid if found else int(name)
        group = found.pw_gid if found and not colon else self._group(group_name, param, ctx)
        return User(text, user, group)

    def _group(self, name: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return _number(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
        except KeyError:
            self.fail(f"this machine has no group {name!r}; addgroup --system makes one", param, ctx)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


def _number(text: str) -> int:
    """The number of a user or group. Raises ValueError."""
    if len(text) > 10 or int(text) > _NUMBER_MAX:
        raise ValueError(f"{text} is not the number of a user or group; they go up to {_NUMBER_MAX}")
    return int(text)
