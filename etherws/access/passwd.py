"""Changing files of passwords and tokens: what `etherws passwd` does. The files and their checks are
credential_files.py's.

A file is replaced as a whole or not at all, and two writers wait for each other. Comments, blank lines and the entries
of others stay as they are, those that the server refuses too, so that they can be renewed one by one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator

import bcrypt

from etherws.access.credential_files import (
    COST,
    COST_MAX,
    COST_MIN,
    PASSWORD_BYTES,
    Kind,
    StrPath,
    check_name,
    entries,
    read,
)
from etherws.errors import CredentialsError


def set_password(path: StrPath, name: str, password: str, cost: int = COST) -> bool:
    """Add the name with this password, or change its password; True if it is new. Raises CredentialsError."""
    check_name("the name", name)
    if not COST_MIN <= cost <= COST_MAX:
        raise CredentialsError(f"a cost of {cost} is out of range; choose {COST_MIN} to {COST_MAX}")
    secret = _usable(password)
    known = bcrypt.hashpw(secret, bcrypt.gensalt(cost)).decode()
    # $2b$ under the name that `htpasswd -B` gives it, which every Apache knows.
    entry = f"{name}:$2y${known[4:]}"
    with _rewriting(path, create=True) as lines:
        old = _take(path, lines, name, "password")
        lines.insert(old[0] if old else len(lines), entry)
    return not old


def add_token(path: StrPath, name: str) -> str:
    """Give the name one more token; return it, which is then nowhere else. Raises CredentialsError."""
    check_name("the name", name)
    token = secrets.token_urlsafe(32)
    with _rewriting(path, create=True) as lines:
        # For its errors.
        list(entries(path, lines, "token"))
        lines.append(f"{name}:sha256:{hashlib.sha256(token.encode()).hexdigest()}")
    return token


def remove(path: StrPath, name: str) -> bool:
    """Delete all entries of the name from a file of either kind; False if it has none. Raises CredentialsError."""
    with _rewriting(path, create=False) as lines:
        return bool(_take(path, lines, name, None))


def _usable(password: str) -> bytes:
    """The password's bytes, if Passwords.check() can ever find them right."""
    try:
        secret = password.encode()
    except UnicodeEncodeError:
        raise CredentialsError("the password is no UTF-8; choose another") from None
    if not secret:
        raise CredentialsError("the password is empty; choose another")
    if len(secret) > PASSWORD_BYTES:
        raise CredentialsError(f"the password is longer than {PASSWORD_BYTES} bytes; choose a shorter one")
    if b"\0" in secret:
        raise CredentialsError("the password has a NUL; choose another")
    return secret


def _take(path: StrPath, lines: list[str], name: str, kind: Kind | None) -> list[int]:
    """Take the name's entries out of `lines`; return where they were, in ascending order."""
    found = [index for index, _, other, _ in entries(path, lines, kind) if other == name]
    for index in reversed(found):
        del lines[index]
    return found


@contextlib.contextmanager
def _rewriting(path: StrPath, *, create: bool) -> Iterator[list[str]]:
    """The file's lines, to be changed inside; the file has them afterwards, unless an exception came.

    A link is followed and stays. Raises CredentialsError.
    """
    # The lock is on the folder: the file itself is another one after each change, and nothing is left lying about.
    target = os.path.realpath(path)
    try:
        with _locked(os.path.dirname(target)) as folder:
            exists = not create or os.path.lexists(target)
            before = read(path)[0] if exists else []
            if before and not before[-1]:
                del before[-1]
            lines = before.copy()
            yield lines
            if lines != before:
                _replace(target, "".join(line + "\n" for line in lines).encode(), os.stat(target) if exists else None)
                # The new name is on the disk only when the folder is.
                os.fsync(folder)
    except OSError as exc:
        raise CredentialsError(
            f"{path}: cannot change: {exc.strerror}; check the path and who may write there"
        ) from exc


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[int]:
    """The folder, open, once no other writer has it; the kernel lets go when the process ends, however it does."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _replace(target: str, content: bytes, like: os.stat_result | None) -> None:
    """Put `content` into the file's place, with the owner and mode of `like`, or the user's own and 0600."""
    # mkstemp() opens it to its owner alone, so that the content is never more open than it was.
    descriptor, fresh = tempfile.mkstemp(prefix=".etherws-", dir=os.path.dirname(target))
    try:
        with open(descriptor, "wb") as file:
            if like:
                os.fchown(descriptor, like.st_uid, like.st_gid)
                os.fchmod(descriptor, like.st_mode & 0o7777)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(fresh, target)
    except BaseException:
        os.unlink(fresh)
        raise
