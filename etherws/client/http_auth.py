"""HTTP authentication, a client's part: what a 401 or 407 asks for, and the answer by user and password.

Pure. Basic (RFC 7617), and Digest (RFC 7616) by MD5 and SHA-256 with qop=auth.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

#: What stands between commas; a comma in quotes is none (RFC 9110, section 5.6.4).
#: A quote that does not end goes on to the end, so that a stranger's costs one pass.
_ITEM = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.?)*(?:"|\Z))+', re.DOTALL)

#: ``scheme name=value``, ``scheme token``, ``scheme`` or a further ``name=value`` (RFC 9110, section 11.3).
_TOKEN = r"[!#$%&'*+.^_`|~\w-]+"
_PART = re.compile(rf'(?:({_TOKEN})\s+)?({_TOKEN})\s*=\s*("(?:[^"\\]|\\.)*"|[^\s"]*)', re.ASCII)
_SCHEME = re.compile(rf"({_TOKEN})(?:\s.*)?", re.ASCII)

#: The algorithms of RFC 7616 that can be had, the strongest first.
_HASHES: dict[str, Callable[[bytes], str]] = {
    "sha-256": lambda data: hashlib.sha256(data).hexdigest(),
    "md5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
}


class Challenge(NamedTuple):
    """One way to authenticate that was offered; the names of its parameters are in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse(values: Iterable[str]) -> list[Challenge]:
    """The challenges in the values of all WWW-Authenticate or Proxy-Authenticate headers. What is none is left out."""
    found: list[Challenge] = []
    for value in values:
        for item in _ITEM.findall(value):
            text = item.strip()
            if part := _PART.fullmatch(text):
                if part[1]:
                    found.append(Challenge(part[1], {}))
                if found:
                    found[-1].parameters[part[2].lower()] = _unquoted(part[3])
            elif scheme := _SCHEME.fullmatch(text):
                found.append(Challenge(scheme[1], {}))
    return found


def answer(
    challenges: Sequence[Challenge], user: str, password: str, *, method: str, uri: str, cnonce: str
) -> str | None:
    """The Authorization or Proxy-Authorization header's value, by the strongest way offered; None if there is none that
    this module has. `method` and `uri` are the request line's; `cnonce` is to be random, and new each time.
    """
    for algorithm in _HASHES:
        for scheme, parameters in challenges:
            if scheme.lower() == "digest" and parameters.get("algorithm", "MD5").lower() == algorithm:
                digest = _digest(parameters, _HASHES[algorithm], user, password, method, uri, cnonce)
                if digest:
                    return digest
    if any(scheme.lower() == "basic" for scheme, _ in challenges):
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return None


def _digest(
    asked: dict[str, str], hashed: Callable[[bytes], str], user: str, password: str, method: str, uri: str, cnonce: str
) -> str | None:
    """RFC 7616, section 3.4; None without qop=auth, or without what must be there."""
    if "auth" not in re.split(r"[\s,]+", asked.get("qop", "").lower()) or not asked.keys() >= {"realm", "nonce"}:
        return None

    def hash_of(*parts: str) -> str:
        return hashed(":".join(parts).encode(errors="surrogateescape"))

    response = hash_of(
        hash_of(user, asked["realm"], password), asked["nonce"], "00000001", cnonce, "auth", hash_of(method, uri)
    )
    quoted = {"username": user, "realm": asked["realm"], "nonce": asked["nonce"], "uri": uri, "response": response}
    quoted["cnonce"] = cnonce
    if "opaque" in asked:
        quoted["opaque"] = asked["opaque"]
    fields = [f"{name}={_quoted(value)}" for name, value in quoted.items()]
    if "algorithm" in asked:
        fields.append(f"algorithm={asked['algorithm']}")
    return "Digest " + ", ".join([*fields, "qop=auth", "nc=00000001"])


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[:1] == '"' else text
