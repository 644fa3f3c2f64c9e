"""Takes secrets, names and public addresses out of texts and values. The same thing has the same new name each time.

Pure. What is secret is learned first: by secret(), name() and host(). Besides, what looks like a secret is one: a hash,
a header for logging in, a long random word. Rather too much is replaced than too little. Read next: address_words.py;
processes.py, which learns.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from etherws.bundle import address_words
from etherws.errors import printable

#: Characters of a secret, and of a name, below which it is not looked for in texts: it would be found in every word.
SECRET_MIN, NAME_MIN = 4, 3

#: Names that are learned; a policy may have thousands.
NAMES_MAX = 20_000

#: Names with blanks and the like, which are looked for one by one.
AWKWARD_MAX = 500

#: A private key in PEM form.
_KEY_BEGIN, _KEY_END = (
    re.compile(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----"),
    re.compile(r"-----END [A-Z ]{0,20}KEY-----"),
)

#: Headers whose value logs somebody in, to the end of the line or of the quotation.
_HEADER = re.compile(
    r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie|etherws-resume|sec-websocket-key|x-[a-z-]{0,40}(?:key|token|secret))"
    r"(\"?'?[ \t]*[:=][ \t]*\"?'?)([^\r\n\"']+)"
)
_SCHEME = re.compile(
    r"(?i)\b(basic|bearer)([ \t]+)([A-Za-z0-9+/._~-]*[A-Z0-9][A-Za-z0-9+/._~-]{3,}={0,2}|[\w.+/~-]{20,})"
)
#: The subprotocol by which a page in a browser sends its token.
_SUBPROTOCOL = re.compile(r"(?i)\b(authorization\.bearer)(\.)([^\s\"',;]+)")

#: Hashes of passwords and tokens.
_HASH = re.compile(
    r"\$(?:2[abxy]|apr1|1|3|5|6|7|y|gy|argon2\w*|pbkdf2[\w-]*)\$[^\s\"',:]{4,}"
    r"|\{S?(?:SHA|MD5)\d*\}[A-Za-z0-9+/=]{8,}|\bsha(?:1|256|512):[0-9a-fA-F]{20,}"
)

#: A name and its value; and what in the name says that the value is secret. One pattern for both would take the cube
#: of a long text's time.
_PAIR = re.compile(r"(?<![\w-])([\w-]{1,100})(\"?'?[ \t]{0,10}[=:][ \t]{0,10}\"?'?)([^\s\"'&;,]+)")
_SECRET_NAME = re.compile(r"(?i)password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key|credential")

#: Such names whose value is only the name of a file.
_FILES = ("file", "files", "dir", "path")

#: Long words. Those with small and capital letters and digits, or of hexadecimal digits, are random.
_LONG = re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9_+/-]{22,}={0,2}")
_HEX = re.compile(r"[0-9a-fA-F]{32,}")

_URI = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{1,20})://([^\s\"'<>]+)")

#: What stands between words that may be names; a name has other characters.
_WORD = re.compile(r"[^\s\"'<>(),;=\[\]{}|/\\@:]+")

#: The names that things get here.
_NEW = re.compile(r"(secret|client|host|mac|address)-\d+")

#: Hosts that say nothing.
_PLAIN_HOSTS = {"localhost", "*", "0.0.0.0", "::", ""}


class Redactor:
    """What has been learned, and the new names so far."""

    def __init__(self, *, addresses: bool = False) -> None:
        """With `addresses`, addresses, hosts and clients keep their names; secrets never do."""
        self.addresses = addresses
        #: How many different things were replaced, by their kind.
        self.counts: Counter[str] = Counter()
        self._new: dict[tuple[str, str], str] = {}
        self._secrets: dict[str, str] = {}
        self._words: dict[str, str] = {}
        self._awkward: dict[str, str] = {}
        self._literal: re.Pattern[str] | None = None

    def secret(self, value: str, new: str = "") -> str:
        """Learn a secret: it is replaced wherever it is, also in base64, hexadecimal, JSON's and URIs' form. Return its
        new name, which is `new` if it is a part of another one."""
        new = new or self._named("secret", value)
        for form in _forms(value) if len(value) >= SECRET_MIN else ():
            self._secrets.setdefault(form, new)
        self._literal = None
        return new

    def name(self, value: str) -> str:
        """Learn the name of a client; return its new one."""
        return self._learned("client", value)

    def host(self, value: str) -> str:
        """Learn the name of a host; return its new one."""
        if value.lower() in _PLAIN_HOSTS or re.fullmatch(r"[0-9.]+|.*:.*", value) or _NEW.fullmatch(value):
            # An address has a new name of its own.
            return value
        return self._learned("host", value)

    def holds_secret(self, text: str) -> bool:
        """Whether a secret that was learned is in the text. It is not, in what text() has returned."""
        return any(form in text for form in self._secrets)

    def text(self, text: str) -> str:
        """The text without what is to be replaced."""
        text = self._without_keys(text)
        text = self._without_learned(text)
        for pattern in (_HEADER, _SCHEME, _SUBPROTOCOL):
            text = pattern.sub(lambda found: f"{found[1]}{found[2]}{self._hidden(found[3])}", text)
        text = _HASH.sub(lambda found: self._hidden(found[0]), text)
        text = _URI.sub(self._uri, text)
        text = _PAIR.sub(self._pair, text)
        text = _LONG.sub(self._long, text)
        if self.addresses:
            return text
        text = _WORD.sub(self._word, text)
        return address_words.replaced(text, lambda mac: self._named("mac", mac), lambda ip: self._named("address", ip))

    def value(self, value: Any) -> Any:
        """A value for JSON, and all in it, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self._field(str(key), each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(each) for each in value]
        return value if value is None or isinstance(value, bool | int | float) else self.text(str(value))

    def _field(self, key: str, value: Any) -> Any:
        if key in ("identity", "client") and isinstance(value, str):
            return self.name(value)
        if isinstance(value, str) and value and _says_secret(key):
            return self.secret(value)
        return self.value(value)

    def learn(self, value: Any) -> None:
        """Learn the names of clients and hosts in a value for JSON, before anything is replaced."""
        if isinstance(value, Mapping):
            for key, each in value.items():
                if key in ("identity", "client") and isinstance(each, str) and each:
                    self.name(each)
                self.learn(each)
        elif isinstance(value, list | tuple):
            for each in value:
                self.learn(each)
        elif isinstance(value, str):
            for found in _URI.finditer(value):
                self._uri(found)

    def _learned(self, kind: str, value: str) -> str:
        if self.addresses:
            return value
        new = self._named(kind, value)
        if len(value) >= NAME_MIN and len(self._words) < NAMES_MAX:
            for form in {value, printable(value), json.dumps(value)[1:-1], quote(value, safe="")}:
                if _WORD.fullmatch(form):
                    self._words.setdefault(form.strip("."), new)
                elif len(self._awkward) < AWKWARD_MAX:
                    self._awkward.setdefault(form, new)
                    self._literal = None
        return new

    def _named(self, kind: str, value: str) -> str:
        key = kind, value
        if key not in self._new:
            self.counts[kind] += 1
            self._new[key] = f"{kind}-{self.counts[kind]}"
        return self._new[key]

    def _hidden(self, found: str) -> str:
        """The new name of what looks like a secret, unless it is a new name already."""
        return found if _NEW.fullmatch(found) else self._named("secret", found)

    def _without_keys(self, text: str) -> str:
        parts, at = [], 0
        while begin := _KEY_BEGIN.search(text, at):
            parts += [text[at : begin.start()], self._named("secret", "private key")]
            end = _KEY_END.search(text, begin.end())
            at = end.end() if end else len(text)
        return "".join([*parts, text[at:]])

    def _without_learned(self, text: str) -> str:
        if self._literal is None:
            # A name is a whole word; a secret may be anywhere.
            self._literal = re.compile(f"{_any_of(self._secrets)}|(?<!\\w){_any_of(self._awkward)}(?!\\w)")
        return self._literal.sub(lambda found: self._secrets.get(found[0]) or self._awkward[found[0]], text)

    def _uri(self, found: re.Match[str]) -> str:
        scheme, rest = found[1], found[2]
        # All before an @ may be a password, as it may have a slash in it.
        info, at, rest = rest.rpartition("@")
        user = f"{self._user(info)}@" if at else ""
        head, question, query = rest.partition("?")
        authority, slash, path = head.partition("/")
        host, colon, port = (
            authority.rpartition(":") if re.search(r"(?<=[^:])(?<!:):\d+$", authority) else (authority, "", "")
        )
        host = self.host(host) if not host.startswith("[") else host
        query = f"?{self._hidden(query)}" if question else ""
        return f"{scheme}://{user}{host}{colon}{port}{slash}{path}{query}"

    def _user(self, info: str) -> str:
        new = self._hidden(info)
        if new != info:
            self.secret(info.partition(":")[2] or info, new)
        return new

    def _pair(self, found: re.Match[str]) -> str:
        return f"{found[1]}{found[2]}{self._hidden(found[3])}" if _says_secret(found[1]) else found[0]

    def _long(self, found: re.Match[str]) -> str:
        word = found[0]
        # A path has such words, too; each of its parts is judged by itself. So is what is too short for base64.
        if word.startswith("/") or ("/" in word and len(word) < 40):
            return "/".join(self._random(part) if len(part) >= 22 else part for part in word.split("/"))
        return self._random(word)

    def _random(self, word: str) -> str:
        kinds = sum(bool(re.search(kind, word)) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
        return self._hidden(word) if kinds == 3 or _HEX.fullmatch(word) else word

    def _word(self, found: re.Match[str]) -> str:
        word = found[0].strip(".")
        return found[0].replace(word, self._words[word], 1) if word in self._words else found[0]


def _any_of(texts: Iterable[str]) -> str:
    """A pattern for each of these texts. Longer ones first: one may be in another."""
    return f"(?:{'|'.join(map(re.escape, sorted(texts, key=len, reverse=True))) or '(?!)'})"


def _says_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and not name.lower().endswith(_FILES)


def _forms(secret: str) -> set[str]:
    """A secret as it may be written: itself, and encoded."""
    raw = secret.encode(errors="surrogateescape")
    found = {
        secret,
        printable(secret),
        json.dumps(secret)[1:-1],
        quote(raw, safe=""),
        quote(raw),
        raw.hex(),
        repr(secret)[1:-1],
    }
    for offset in range(3):
        # Within other bytes it begins at one of three places in base64; the letters at its ends depend on these others.
        encoded = base64.b64encode(b"\0" * offset + raw).decode().rstrip("=")
        inner = encoded[(0, 2, 3)[offset] : len(encoded) - (1 if (offset + len(raw)) % 3 else 0)]
        found |= {inner, inner.translate(str.maketrans("+/", "-_"))}
    return {form for form in found if len(form) >= SECRET_MIN}
