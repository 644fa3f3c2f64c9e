"""Change files of passwords and tokens: what `etherws passwd` does. Read next: credential_files.py, which reads them.

A file is replaced as a whole or not at all. Two writers wait for each other, but not for ever. Comments, blank lines
and the entries of other names stay as they are; so do entries that the server refuses, so that one can renew them one
by one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from time import monotonic, sleep

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

#: Seconds to wait for another writer, and between two looks. A writer needs milliseconds; one that was stopped in the
#: middle (Ctrl-Z) has the lock for as long as it likes.
LOCK_PATIENCE, LOCK_PAUSE = 10.0, 0.02


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


def add_token(path: StrPath, name: str, deliver: Callable[[str], None] = lambda _: None, *, renew: bool = False) -> str:
    """Give the name one more token, or with `renew` this one in place of all that it has; return the token, which is
    stored nowhere.

    `deliver` gets the token before the file is changed. If it raises, the file stays as it was. Raises
    CredentialsError.
    """
    check_name("the name", name)
    token = secrets.token_urlsafe(32)
    with _rewrite(path, create=True) as lines:
        if renew:
            _remove_entries(path, lines, name, "token")
        else:
            # Only for the errors.
            list(parse_entries(path, lines, "token"))
        lines.append(f"{name}:sha256:{hashlib.sha256(token.encode()).hexdigest()}")
        deliver(token)
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
    target = os.path.realpath(path)
    try:
        with _new_file(target) as new:
            exists = not create or os.path.lexists(target)
            before = read_lines(path)[0] if exists else []
            if before and not before[-1]:
                del before[-1]
            lines = before.copy()
            yield lines
            if lines != before:
                _write(new, "".join(line + "\n" for line in lines).encode(), os.stat(target) if exists else None)
                os.replace(_new_name(target), target)
                _sync_folder(target)
    except OSError as exc:
        raise CredentialsError(
            f"{path}: cannot change: {exc.strerror}; check the path and who may write there"
        ) from exc


def _new_name(target: str) -> str:
    """The name of the new file while it is written, in the same folder."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f".etherws-{name}")


@contextlib.contextmanager
def _new_file(target: str) -> Iterator[int]:
    """The descriptor of an empty file that can take the target's place. If it does not, it is removed at the end.

    It is the lock of the writers, too: only its owner can open it. A lock on the target or on the folder could be held
    by everybody who may read that. Raises CredentialsError if another writer has it for LOCK_PATIENCE seconds.
    """
    name, deadline = _new_name(target), monotonic() + LOCK_PATIENCE
    while True:
        new = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            found = os.fstat(new)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise CredentialsError(f"{name}: is in the way, and not this user's file; remove it")
            if _locked(new) and _is_at(new, name):
                break
        except BaseException:
            os.close(new)
            raise
        os.close(new)
        if monotonic() > deadline:
            raise CredentialsError(f"{target}: another 'etherws passwd' changes it; try again when that has ended")
        sleep(LOCK_PAUSE)
    try:
        # A writer that was killed leaves its own, with what it wrote and the mode that it set.
        os.fchmod(new, 0o600)
        os.ftruncate(new, 0)
        yield new
    finally:
        # Not if it has become the target.
        if _is_at(new, name):
            os.unlink(name)
        os.close(new)


def _locked(file: int) -> bool:
    """Whether this process has the file's lock now. The kernel releases it when the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: int, path: str) -> bool:
    """Whether this open file has this name, and not another file or none."""
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except FileNotFoundError:
        return False


def _write(file: int, content: bytes, like: os.stat_result | None) -> None:
    """Write the content to the disk, and give the file the owner and mode of `like`; else they stay."""
    with open(file, "wb", closefd=False) as writer:
        writer.write(content)
    if like:
        os.fchown(file, like.st_uid, like.st_gid)
        os.fchmod(file, like.st_mode & 0o7777)
    os.fsync(file)


def _sync_folder(path: str) -> None:
    """Have a file's new name written to the disk."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
