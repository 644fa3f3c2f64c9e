"""Files of passwords and tokens: who may connect. Read whole, checked, and asked at each login.

No sockets and no HTTP. A password file has NAME:HASH on a line, the hash of bcrypt (`htpasswd -B`) or {SHA} as
etherws 1.3 took it; a token file has NAME:sha256:HEX. Comments (#) and blank lines may stand between. No message shows
a hash or a password, nor a name that may be one. Changing the files is passwd.py's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Iterator, Sequence
from typing import Literal

import bcrypt

from etherws.errors import CredentialsError

StrPath = str | os.PathLike[str]
Kind = Literal["password", "token"]

#: Far more than any file of credentials needs, and nothing that hurts to read.
FILE_BYTES = 16 << 20

#: Of a name, in UTF-8: it goes into the log with each session.
NAME_BYTES = 128

#: bcrypt reads no more of a password than this. A longer one would match by its beginning, so it never matches.
PASSWORD_BYTES = 72

#: Of bcrypt, whose work is 2 to the power of it: 10 is about 60 ms. 31, its own limit, would take a day and a half.
COST_MIN, COST, COST_MAX = 4, 10, 15

#: The salt's last character holds two bits of its 16 bytes. $2y$, $2b$ and $2a$ are the same up to 72 bytes.
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII)
_SHA1 = re.compile(r"\{SHA\}([A-Za-z0-9+/]{27}=)")
_TOKEN = re.compile("sha256:([0-9a-fA-F]{64})")

#: What other programs write into such files, by how it begins.
_SCHEMES = (
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
#: What crypt(3) wrote first has no beginning of its own.
_DES = re.compile(r"[./A-Za-z0-9]{13}")

_RENEW = "set it anew by `etherws passwd FILE NAME`"


class Passwords:
    """A password file. `warnings` are sentences for the log. It does not change, so threads may share it."""

    def __init__(self, bcrypts: dict[str, bytes], sha1s: dict[str, bytes], warnings: Sequence[str] = ()) -> None:
        """By name: whole hashes of bcrypt, and digests of SHA-1."""
        self.warnings = list(warnings)
        self._bcrypts, self._sha1s = bcrypts, sha1s
        # A bare salt takes the work of its cost, and no hash equals it. One for each cost in the file.
        costs = {int(known[4:6]) for known in bcrypts.values()} or {COST}
        self._dummies = {cost: bcrypt.gensalt(cost) for cost in costs}

    @classmethod
    def load(cls, path: StrPath) -> Passwords:
        """Read the file; raises CredentialsError with file and line."""
        lines, warnings = read(path)
        bcrypts: dict[str, bytes] = {}
        sha1s: dict[str, bytes] = {}
        weak = ""
        for _, where, name, value in entries(path, lines, "password"):
            if name in bcrypts or name in sha1s:
                raise CredentialsError(f"{where}: this name has an entry already; delete one of the two")
            if value.startswith("{SHA}"):
                sha1s[name] = _sha1(where, value)
                weak = weak or where
            else:
                bcrypts[name] = _bcrypt(where, value)
        if weak:
            warnings.append(
                f"{weak}: {{SHA}} has no salt and is guessed fast once the file is stolen ({len(sha1s)} such, this"
                f" the first); renew by `etherws passwd {path} NAME`"
            )
        return cls(bcrypts, sha1s, warnings)

    def check(self, name: str, password: str) -> bool:
        """Whether this is the name's password. Takes tens of milliseconds without the GIL: call it in a thread.

        Both are compared as bytes of UTF-8, as they were typed; Unicode has other spellings of the same letters, and
        they differ. The empty password, one with NUL and one of more than 72 bytes match nothing.
        """
        secret = password.encode(errors="surrogatepass")
        usable = 0 < len(secret) <= PASSWORD_BYTES and b"\0" not in secret
        if not usable:
            secret = b"-"
        known = self._bcrypts.get(name, b"")
        found = hmac.compare_digest(self._sha1s.get(name, b""), hashlib.sha1(secret).digest())
        # Every check, of whatever name, runs bcrypt once at each cost that the file has: with the name's own hash at
        # that hash's cost, with a dummy at the others. So the time tells neither who is in the file nor by which entry.
        # Mostly there is one cost only; several take less than twice the time of the highest.
        for cost, dummy in self._dummies.items():
            own = known[4:6] == b"%02d" % cost
            found |= bcrypt.checkpw(secret, known if own else dummy)
        return found and usable


class Tokens:
    """A token file. `warnings` are sentences for the log. It does not change, so threads may share it."""

    def __init__(self, owners: dict[bytes, str], warnings: Sequence[str] = ()) -> None:
        """`owners`: names by the SHA-256 of their tokens."""
        self.warnings = list(warnings)
        self._owners = owners

    @classmethod
    def load(cls, path: StrPath) -> Tokens:
        """Read the file; raises CredentialsError with file and line."""
        lines, warnings = read(path)
        owners: dict[bytes, str] = {}
        for _, where, name, value in entries(path, lines, "token"):
            found = _TOKEN.fullmatch(value)
            if not found:
                raise CredentialsError(f"{where}: sha256: wants 64 hexadecimal digits; make the token anew")
            digest = bytes.fromhex(found[1])
            if digest in owners:
                raise CredentialsError(f"{where}: this token has an entry already; delete one of the two")
            owners[digest] = name
        return cls(owners, warnings)

    def owner(self, token: str) -> str | None:
        """The name that the token stands for; None if it is none of these."""
        # One round of SHA-256 without salt is right here, as it is wrong for passwords: a token is 256 random bits, so
        # there is no dictionary to try. Nor does the time of this look-up matter: it could tell about the digest only,
        # and who has the whole digest still does not have the token.
        return self._owners.get(hashlib.sha256(token.encode(errors="surrogatepass")).digest())


def read(path: StrPath) -> tuple[list[str], list[str]]:
    """The file's lines without their ends, and warnings about the file. Raises CredentialsError."""
    try:
        # Before opening, which waits at a FIFO.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise CredentialsError(f"{path}: is no regular file; name one")
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(FILE_BYTES + 1)
    except OSError as exc:
        raise CredentialsError(f"{path}: cannot read: {exc.strerror}; check the path and who may read it") from exc
    if len(raw) > FILE_BYTES:
        raise CredentialsError(f"{path}: is larger than {FILE_BYTES >> 20} MiB; is this the right file?")
    try:
        lines = raw.decode().split("\n")
    except UnicodeDecodeError as exc:
        # Its own error would carry the file along.
        line = raw.count(b"\n", 0, exc.start) + 1
        raise CredentialsError(f"{path}:{line}: is no UTF-8; convert the file or delete the line") from None
    others = mode & (stat.S_IROTH | stat.S_IWOTH)
    return lines, [f"{path}: is open to everyone on this machine; close it by chmod o-rw"] if others else []


def entries(path: StrPath, lines: list[str], kind: Kind | None) -> Iterator[tuple[int, str, str, str]]:
    """The lines that are entries: index, "FILE:LINE", name, and what comes behind the name.

    Raises CredentialsError for a line that is none, and for one that is of another kind than `kind`, if that is given.
    """
    for index, line in enumerate(lines):
        if line.startswith("#") or not line.strip():
            continue
        where = f"{path}:{index + 1}"
        name, colon, value = line.partition(":")
        if not colon:
            raise CredentialsError(f"{where}: has no colon; write NAME:HASH, or # before a comment")
        check_name(f"{where}: the name", name)
        found = "token" if value.startswith("sha256:") else "password"
        if kind and found != kind:
            raise CredentialsError(f"{where}: this is a {found} file; {kind}s go into a file of their own")
        yield index, where, name, value.rstrip()


def check_name(what: str, name: str) -> None:
    """Raise CredentialsError, beginning with `what`, unless `name` can stand in a file of either kind."""
    if not name:
        raise CredentialsError(f"{what} is empty; give it one")
    # What is no UTF-8 on the command line comes as surrogates, which are not printable either.
    if not name.isprintable():
        raise CredentialsError(f"{what} has characters that cannot be printed; leave them out")
    if len(name.encode()) > NAME_BYTES:
        raise CredentialsError(f"{what} is longer than {NAME_BYTES} bytes; choose a shorter one")
    if ":" in name or name.startswith("#"):
        raise CredentialsError(f"{what} has a colon or begins with #; leave them out")


def _sha1(where: str, value: str) -> bytes:
    """The digest in {SHA}BASE64."""
    found = _SHA1.fullmatch(value)
    if not found:
        raise CredentialsError(f"{where}: a malformed {{SHA}} is not accepted; {_RENEW}")
    return base64.b64decode(found[1])


def _bcrypt(where: str, value: str) -> bytes:
    """The hash, if it is bcrypt's; else the error says what it is."""
    found = _BCRYPT.fullmatch(value)
    if not found:
        scheme = next((name for prefix, name in _SCHEMES if value.startswith(prefix)), None)
        if scheme is None:
            scheme = "crypt (DES)" if _DES.fullmatch(value) else "plain text or an unknown hash"
        raise CredentialsError(f"{where}: {scheme} is not accepted; {_RENEW}")
    if not COST_MIN <= int(found[1]) <= COST_MAX:
        raise CredentialsError(
            f"{where}: bcrypt of cost {found[1]}, and {COST_MIN} to {COST_MAX} are accepted; {_RENEW}"
        )
    return value.encode()
