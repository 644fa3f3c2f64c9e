"""Who is logged in at --monitor: one-time tokens, the cookies that they become, and the tokens of programs.

All are compared in constant time, bounded in number, and kept as digests only. Read next: access.py, which asks.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from etherws.errors import CredentialsError
from etherws.observe.kept_logins import KeptLogins
from etherws.reloadable import Reloadable
from etherws.server.login_queue import LoginLimiter
from etherws.small_files import read_file

#: Seconds for which a one-time token counts: to copy an address into a browser takes some.
TOKEN_SECONDS = 60.0

#: One-time tokens that count at once, and browsers that are logged in. The oldest is forgotten.
TOKENS_MAX, COOKIES_MAX = 16, 64

#: Bytes of chance in each: nobody guesses 256 bits.
CHANCE = 32

#: Bytes of a token file, tokens in it, and characters of each. A shorter one could be guessed.
FILE_MAX, LINES_MAX, TOKEN_MIN, TOKEN_MAX = 64 * 1024, 100, 16, 500

#: Cookies in a header that are looked at: those of other servers on this machine come as well.
LOOK_MAX = 50

Digests = tuple[bytes, ...]


class Logins:
    """Those of one process."""

    def __init__(
        self,
        cookie: str,
        tokens: Reloadable[Digests] | None = None,
        kept: KeptLogins | None = None,
        *,
        random: Callable[[], str] = lambda: secrets.token_urlsafe(CHANCE),
    ) -> None:
        """`cookie` is the cookie's name: browsers do not tell the ports of a machine apart. `tokens` are those of
        programs; see read_tokens(). `kept` are the cookies that outlive this process."""
        self._cookie, self._tokens, self._kept, self._random = cookie, tokens, kept, random
        # Digests of one-time tokens, and until when each counts; and of cookies. The oldest first.
        self._once: OrderedDict[bytes, float] = OrderedDict()
        self._cookies: OrderedDict[bytes, None] = OrderedDict.fromkeys(kept.cookies if kept else ())
        self._limiter = LoginLimiter()

    @property
    def has_tokens(self) -> bool:
        """Whether there are tokens of programs."""
        return self._tokens is not None

    def new_token(self, now: float) -> str:
        """A new one-time token, at a time in seconds."""
        token = self._random()
        self._once[digest(token)] = now + TOKEN_SECONDS
        _shorten(self._once, TOKENS_MAX)
        return token

    def log_in(self, token: str, now: float) -> str:
        """The cookie, as NAME=VALUE, for a one-time token, which counts no more; empty if it does not count."""
        found = _found(digest(token), self._once)
        if found is None or now > self._once.pop(found):
            return ""
        value = self._random()
        self._cookies[digest(value)] = None
        _shorten(self._cookies, COOKIES_MAX)
        if self._kept:
            self._kept.save(list(self._cookies))
        return f"{self._cookie}={value}"

    def knows(self, header: str) -> bool:
        """Whether a Cookie header has a cookie that was given."""
        for each in header.split(";", LOOK_MAX)[:LOOK_MAX]:
            name, _, value = each.strip().partition("=")
            if name == self._cookie and (found := _found(digest(value), self._cookies)) is not None:
                self._cookies.move_to_end(found)
                return True
        return False

    def is_token(self, token: str) -> bool:
        """Whether this is a program's token, by the file as it is now."""
        return self._tokens is not None and _found(digest(token), self._tokens.get()) is not None

    def wait(self, source: str, now: float) -> float:
        """Seconds until an address may try another token; 0 if it may now."""
        return self._limiter.wait(source, now)

    def failed(self, source: str, now: float) -> None:
        """Count a wrong token from an address."""
        self._limiter.failed(source, now)


def digest(text: str) -> bytes:
    """What is kept of a token or a cookie."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def read_tokens(path: str) -> Digests:
    """The digests of the tokens in a file: one a line, beside comments (#) and blank lines. Raises CredentialsError,
    which shows none of them."""
    try:
        data = read_file(path, FILE_MAX + 1)
    except OSError as exc:
        raise CredentialsError(f"{path}: cannot read: {exc.strerror}; check the path and who may read it") from exc
    if len(data) > FILE_MAX:
        raise CredentialsError(f"{path}: is larger than {FILE_MAX >> 10} KiB; is this the right file?")
    found = []
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        token = line.strip()
        if not token or token.startswith("#"):
            continue
        if not re.fullmatch(f"[!-~]{{{TOKEN_MIN},{TOKEN_MAX}}}", token):
            raise CredentialsError(
                f"{path}:{number}: is not a token: it needs {TOKEN_MIN} to {TOKEN_MAX} printable ASCII characters"
                " without blanks; make one by: openssl rand -hex 32"
            )
        found.append(digest(token))
    if not 1 <= len(found) <= LINES_MAX:
        raise CredentialsError(f"{path}: has {len(found)} tokens; write 1 to {LINES_MAX}, each in a line of its own")
    return tuple(found)


def _found(wanted: bytes, among: Iterable[bytes]) -> bytes | None:
    """The one that is the same. All are compared: the time does not tell where it is."""
    found = None
    for each in among:
        if hmac.compare_digest(each, wanted):
            found = each
    return found


def _shorten(table: OrderedDict[bytes, Any], size: int) -> None:
    while len(table) > size:
        table.popitem(last=False)
