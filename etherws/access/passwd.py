"""Change files of passwords and tokens: what `etherws passwd` does. Read next: credential_files.py, which reads them.

A file is replaced as a whole or not at all, and two writers wait for each other. Comments, blank lines and the entries
of other names stay as they are; so do entries that the server refuses, so that one can renew them one by one.
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
    PASSWORD_MAX,
    FileKind,
    StrPath,
    check_name,
    parse_entries,
    read_lines,
)
from etherws.errors import CredentialsError


def set_password(path: StrPath, name: str, password: str, cost: int = COST) -> bool:
    """Add the name with this password, or change its password; True if the name is new. Raises CredentialsError."""
    check_name("the name", name)
    if not COST_MIN <= cost <= COST_MAX:
        raise CredentialsError(f"a cost of {cost} is out of range; choose {COST_MIN} to {COST_MAX}")
    secret = _password_bytes(password)
    hashed = bcrypt.hashpw(secret, bcrypt.gensalt(cost)).decode()
    # bcrypt writes $2b$. `htpasswd -B` calls the same $2y$, which every version of Apache knows.
    entry = f"{name}:$2y${hashed[4:]}"
    with _rewrite(path, create=True) as lines:
        removed = _remove_entries(path, lines, name, "password")
        lines.insert(removed[0] if removed else len(lines), entry)
    return not removed


def add_token(path: StrPath, name: str) -> str:
    """Give the name one more token; return the token, which is stored nowhere. Raises CredentialsError."""
    check_name("the name", name)
    token = secrets.token_urlsafe(32)
    with _rewrite(path, create=True) as lines:
        # Only for the errors.
        list(parse_entries(path, lines, "token"))
        lines.append(f"{name}:sha256:{hashlib.sha256(token.encode()).hexdigest()}")
    return token


def remove(path: StrPath, name: str) -> bool:
    """Delete all entries of the name from a file of either kind; False if it has none. Raises CredentialsError."""
    with _rewrite(path, create=False) as lines:
        return bool(_remove_entries(path, lines, name, None))


def _password_bytes(password: str) -> bytes:
    """The password in UTF-8. Raises CredentialsError for one that Passwords.check() never accepts."""
    try:
        secret = password.encode()
    except UnicodeEncodeError:
        raise CredentialsError("the password is not UTF-8; choose another") from None
    if not secret:
        raise CredentialsError("the password is empty; choose another")
    if len(secret) > PASSWORD_MAX:
        raise CredentialsError(f"the password is longer than {PASSWORD_MAX} bytes; choose a shorter one")
    if b"\0" in secret:
        raise CredentialsError("the password has a NUL; choose another")
    return secret


def _remove_entries(path: StrPath, lines: list[str], name: str, kind: FileKind | None) -> list[int]:
    """Remove the name's entries from `lines`; return their former indexes, in ascending order."""
    found = [entry.line for entry in parse_entries(path, lines, kind) if entry.name == name]
    for index in reversed(found):
        del lines[index]
    return found


@contextlib.contextmanager
def _rewrite(path: StrPath, *, create: bool) -> Iterator[list[str]]:
    """The file's lines, for the caller to change. They are written at the end, unless an exception was raised.

    A symbolic link is followed, and stays. Raises CredentialsError.
    """
    # The lock is on the folder: each change makes a new file, and a lock file would be left behind.
    target = os.path.realpath(path)
    try:
        with _locked(os.path.dirname(target)) as folder:
            exists = not create or os.path.lexists(target)
            before = read_lines(path)[0] if exists else []
            if before and not before[-1]:
                del before[-1]
            lines = before.copy()
            yield lines
            if lines != before:
                _replace(target, "".join(line + "\n" for line in lines).encode(), os.stat(target) if exists else None)
                # The file's new name is on the disk only after the folder was written.
                os.fsync(folder)
    except OSError as exc:
        raise CredentialsError(
            f"{path}: cannot change: {exc.strerror}; check the path and who may write there"
        ) from exc


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[int]:
    """The folder's descriptor, with a lock that only one writer has. The kernel releases it when the process ends."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _replace(target: str, content: bytes, like: os.stat_result | None) -> None:
    """Replace the file by one with `content`, with the owner and mode of `like`, or else the user's and 0600."""
    # mkstemp() gives only the owner access, so the content is never more open than before.
    descriptor, temporary = tempfile.mkstemp(prefix=".etherws-", dir=os.path.dirname(target))
    try:
        with open(descriptor, "wb") as file:
            if like:
                os.fchown(descriptor, like.st_uid, like.st_gid)
                os.fchmod(descriptor, like.st_mode & 0o7777)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
