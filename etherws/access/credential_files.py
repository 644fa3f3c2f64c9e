"""Files of passwords and tokens: read and check a file, and check a login against it.

No sockets and no HTTP. A line of a password file is NAME:HASH; the hash is bcrypt's (`htpasswd -B`), or {SHA}, which
etherws 1.3 used. A line of a token file is NAME:sha256:HEX. Comments (#) and blank lines are allowed. No message shows
a hash or a password, nor a name that may be a password. Read next: passwd.py, which changes the files.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import hmac
import os
import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import bcrypt

from etherws.errors import CredentialsError
from etherws.small_files import is_open_to_all, read_file

StrPath = str | os.PathLike[str]
FileKind = Literal["password", "token"]

#: Bytes of a file: far more than credentials need, and quick to read.
FILE_MAX = 16 << 20

#: Bytes of a name in UTF-8: each session's log lines have it.
NAME_MAX = 128

#: Bytes of a password: bcrypt ignores the rest. A longer password would match by its beginning, so it is refused.
PASSWORD_MAX = 72

#: bcrypt's cost, the binary logarithm of its work: 10 takes about 60 ms. Its own limit, 31, would take 36 hours.
COST_MIN, COST, COST_MAX = 4, 10, 15

#: The salt's last character holds two bits of its 16 bytes. $2y$, $2b$ and $2a$ are the same up to 72 bytes.
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII)
_SHA1 = re.compile(r"\{SHA\}([A-Za-z0-9+/]{27}=)")
_TOKEN = re.compile("sha256:([0-9a-fA-F]{64})")

#: Hashes of other programs: how each begins, and its name for the message.
_OTHER_SCHEMES = (
    ("{SSHA", "{SSHA} (salted SHA)"),
    ("{SMD5}", "{SMD5}"),
    ("{MD5}", "{MD5}"),
    ("{CRYPT}", "{CRYPT}"),
    ("{PLAIN}", "{PLAIN}"),
    ("{SHA", "{SHA256} or {SHA512}"),
    ("$apr1$", "$apr1$ (Apache's MD5)"),
    ("$1$", "$1$ (MD5 crypt)"),
    ("$2x$", "$2x$ (a faulty bcrypt)"),
    ("$2", "a malformed bcrypt"),
    ("$3$", "$3$ (NT hash)"),
    ("$5$", "$5$ (SHA-256 crypt)"),
    ("$6$", "$6$ (SHA-512 crypt)"),
    ("$7$", "$7$ (scrypt)"),
    ("$y$", "$y$ (yescrypt)"),
    ("$gy$", "$gy$ (gost-yescrypt)"),
    ("$sha1$", "$sha1$ (PBKDF1)"),
    ("$argon2", "$argon2 (Argon2)"),
    ("$pbkdf2", "$pbkdf2 (PBKDF2)"),
    ("$P$", "$P$ (phpass)"),
    ("$H$", "$H$ (phpass)"),
)
#: crypt(3)'s first kind of hash, which has no prefix.
_DES = re.compile(r"[./A-Za-z0-9]{13}")

_RENEW = "set a new password with `etherws passwd FILE NAME`"


class Passwords:
    """A password file. `warnings` are sentences for the log. The object never changes, so threads can share it."""

    def __init__(self, bcrypts: dict[str, bytes], sha1s: dict[str, bytes], warnings: Sequence[str] = ()) -> None:
        """`bcrypts` has bcrypt's hashes by name, `sha1s` the SHA-1 digests."""
        self.warnings = list(warnings)
        self._bcrypts, self._sha1s = bcrypts, sha1s
        # A salt alone, without a hash: to check it takes the work of its cost, and it never matches. One for each cost
        # in the file.
        costs = {int(known[4:6]) for known in bcrypts.values()} or {COST}
        self._dummies = {cost: bcrypt.gensalt(cost) for cost in costs}

    @classmethod
    def load(cls, path: StrPath) -> Passwords:
        """Read the file. Raises CredentialsError with file and line."""
        lines, warnings = read_lines(path)
        bcrypts: dict[str, bytes] = {}
        sha1s: dict[str, bytes] = {}
        weak = ""
        for entry in parse_entries(path, lines, "password"):
            name, where, value = entry.name, entry.where, entry.value
            if name in bcrypts or name in sha1s:
                raise CredentialsError(f"{where}: this name has an entry already; delete one of the two")
            if value.startswith("{SHA}"):
                sha1s[name] = _sha1(where, value)
                weak = weak or where
            else:
                bcrypts[name] = _bcrypt(where, value)
        if weak:
            warnings.append(
                f"{weak}: {{SHA}} has no salt and can be guessed fast if the file is stolen ({len(sha1s)} such, this"
                f" is the first); set a new password with `etherws passwd {path} NAME`"
            )
        return cls(bcrypts, sha1s, warnings)

    def __len__(self) -> int:
        """How many names there are."""
        return len(self._bcrypts) + len(self._sha1s)

    def entry(self, name: str) -> bytes | None:
        """A value that tells the name's entry from any other, and from a later one with another password; None if the
        file does not have the name. It is no secret: nobody can compute the hash from it."""
        known = self._bcrypts.get(name) or self._sha1s.get(name)
        return hashlib.sha256(known).digest() if known else None

    def check(self, name: str, password: str) -> bool:
        """Whether this is the password of `name`. Takes tens of milliseconds without the GIL: call it in a thread.

        Names and passwords are compared as bytes of UTF-8, as they were typed. Unicode can write the same letter in
        several ways, and these differ. An empty password, one with NUL and one of more than 72 bytes never match.
        """
        secret = password.encode(errors="surrogatepass")
        usable = 0 < len(secret) <= PASSWORD_MAX and b"\0" not in secret
        if not usable:
            secret = b"-"
        hashed = self._bcrypts.get(name, b"")
        matches = hmac.compare_digest(self._sha1s.get(name, b""), hashlib.sha1(secret).digest())
        # Every check of any name runs bcrypt once at each cost in the file: with the name's own hash at the cost of
        # that hash, with a dummy at the other costs. So the time does not show whether the name is in the file, nor
        # what entry it has. Usually there is only one cost; several take less than twice the time of the highest.
        for cost, dummy in self._dummies.items():
            own = hashed[4:6] == b"%02d" % cost
            matches |= bcrypt.checkpw(secret, hashed if own else dummy)
        return matches and usable


class Tokens:
    """A token file. `warnings` are sentences for the log. The object never changes, so threads can share it."""

    def __init__(self, names: dict[bytes, str], warnings: Sequence[str] = ()) -> None:
        """`names` by the SHA-256 of their tokens."""
        self.warnings = list(warnings)
        self._names = names

    @classmethod
    def load(cls, path: StrPath) -> Tokens:
        """Read the file. Raises CredentialsError with file and line."""
        lines, warnings = read_lines(path)
        names: dict[bytes, str] = {}
        for entry in parse_entries(path, lines, "token"):
            found = _TOKEN.fullmatch(entry.value)
            if not found:
                raise CredentialsError(f"{entry.where}: sha256: needs 64 hexadecimal digits; make a new token")
            digest = bytes.fromhex(found[1])
            if digest in names:
                raise CredentialsError(f"{entry.where}: this token has an entry already; delete one of the two")
            names[digest] = entry.name
        return cls(names, warnings)

    def __len__(self) -> int:
        """How many tokens there are."""
        return len(self._names)

    def has(self, name: str) -> bool:
        """Whether the name has a token."""
        return name in self._names.values()

    def name_of(self, token: str) -> str | None:
        """The name that the token belongs to; None if the file does not have it."""
        return self.owner(self.entry(token))

    def owner(self, entry: bytes) -> str | None:
        """The name that the token with this entry() belongs to; None if the file does not have it."""
        return self._names.get(entry)

    @staticmethod
    def entry(token: str) -> bytes:
        """What the file has of a token."""
        # SHA-256 without salt would be wrong for passwords, but is enough for tokens: a token has 256 random bits, so
        # nobody can guess it from a dictionary. The time of this look-up can only show something about the digest, and
        # even with the whole digest nobody can compute the token.
        return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


class Entry(NamedTuple):
    """One line with a name and a hash: the line's index, "FILE:LINE" for messages, the name, and the text behind it."""

    line: int
    where: str
    name: str
    value: str


def read_lines(path: StrPath) -> tuple[list[str], list[str]]:
    """The file's lines without their ends, and warnings about the file. Raises CredentialsError."""
    try:
        raw = read_file(path, FILE_MAX + 1)
    except OSError as exc:
        # Only read_file() itself says so: open() has no such error for a name.
        if exc.errno == errno.EINVAL:
            raise CredentialsError(f"{path}: is not a regular file; name one") from exc
        raise CredentialsError(f"{path}: cannot read: {exc.strerror}; check the path and who may read it") from exc
    if len(raw) > FILE_MAX:
        raise CredentialsError(f"{path}: is larger than {FILE_MAX >> 20} MiB; is this the right file?")
    try:
        lines = raw.decode().split("\n")
    except UnicodeDecodeError as exc:
        # "from None": the decoder's error contains the file.
        line = raw.count(b"\n", 0, exc.start) + 1
        raise CredentialsError(f"{path}:{line}: is not UTF-8; convert the file or delete the line") from None
    warning = f"{path}: is open to everyone on this machine; close it with chmod o-rw"
    return lines, [warning] if is_open_to_all(path) else []


def parse_entries(path: StrPath, lines: list[str], kind: FileKind | None) -> Iterator[Entry]:
    """The entries among the lines of a file; comments and blank lines are left out.

    Raises CredentialsError for a malformed line, and for an entry of another kind than `kind`, unless that is None.
    """
    for index, line in enumerate(lines):
        if line.startswith("#") or not line.strip():
            continue
        where = f"{path}:{index + 1}"
        name, colon, value = line.partition(":")
        if not colon:
            client = "; is it the client's file, with the token itself?" if kind == "token" else ""
            raise CredentialsError(f"{where}: has no colon; write NAME:HASH, or # before a comment{client}")
        check_name(f"{where}: the name", name)
        found = "token" if value.startswith("sha256:") else "password"
        if kind and found != kind:
            raise CredentialsError(f"{where}: this is a {found} file; {kind}s need a file of their own")
        yield Entry(index, where, name, value.rstrip())


def check_name(what: str, name: str) -> None:
    """Raise CredentialsError, beginning with `what`, unless `name` can be in a file of either kind."""
    if not name:
        raise CredentialsError(f"{what} is empty; give one")
    # Bytes of the command line that are not UTF-8 come as surrogates, which are not printable either.
    if not name.isprintable():
        raise CredentialsError(f"{what} has characters that cannot be printed; leave them out")
    if len(name.encode()) > NAME_MAX:
        raise CredentialsError(f"{what} is longer than {NAME_MAX} bytes; choose a shorter one")
    if ":" in name or name.startswith("#"):
        raise CredentialsError(f"{what} has a colon or begins with #; leave them out")


def _sha1(where: str, value: str) -> bytes:
    """The digest in {SHA}BASE64."""
    found = _SHA1.fullmatch(value)
    if not found:
        raise CredentialsError(f"{where}: a malformed {{SHA}} is not accepted; {_RENEW}")
    return base64.b64decode(found[1])


def _bcrypt(where: str, value: str) -> bytes:
    """The hash, if it is bcrypt's. Raises CredentialsError, which names what it is instead."""
    found = _BCRYPT.fullmatch(value)
    if not found:
        scheme = next((name for prefix, name in _OTHER_SCHEMES if value.startswith(prefix)), None)
        if scheme is None:
            scheme = "crypt (DES)" if _DES.fullmatch(value) else "plain text or an unknown hash"
        raise CredentialsError(f"{where}: {scheme} is not accepted; {_RENEW}")
    if not COST_MIN <= int(found[1]) <= COST_MAX:
        raise CredentialsError(f"{where}: bcrypt's cost is {found[1]}; it must be {COST_MIN} to {COST_MAX}; {_RENEW}")
    return value.encode()
