"""HTTP authentication, the client's side: parse a 401's or 407's challenges, and answer them with user and password.

Pure. Has Basic (RFC 7617), and Digest (RFC 7616) with MD5 and SHA-256 and qop=auth. proxies.py uses it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from etherws.settings import HTTP_TOKEN

#: What stands between commas; a comma in quotes does not count (RFC 9110, section 5.6.4). A quote without its end goes
#: on to the end of the text. So one pass is enough, whatever a stranger sends.
_ITEM = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.?)*(?:"|\Z))+', re.DOTALL)

#: ``scheme name=value``, ``scheme token``, ``scheme`` or a further ``name=value`` (RFC 9110, section 11.3).
_PARAMETER = re.compile(rf'(?:({HTTP_TOKEN})\s+)?({HTTP_TOKEN})\s*=\s*("(?:[^"\\]|\\.)*"|[^\s"]*)', re.ASCII)
_SCHEME = re.compile(rf"({HTTP_TOKEN})(?:\s.*)?", re.ASCII)

#: The algorithms of RFC 7616 that this module has, the strongest first.
_HASHES: dict[str, Callable[[bytes], str]] = {
    "sha-256": lambda data: hashlib.sha256(data).hexdigest(),
    "md5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
}


class Challenge(NamedTuple):
    """One way to authenticate that the server or proxy offers; the names of its parameters are in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse(values: Iterable[str]) -> list[Challenge]:
    """The challenges in the values of all WWW-Authenticate or Proxy-Authenticate headers. Malformed items are left
    out."""
    challenges: list[Challenge] = []
    for value in values:
        for item in _ITEM.findall(value):
            text = item.strip()
            if parameter := _PARAMETER.fullmatch(text):
                if parameter[1]:
                    challenges.append(Challenge(parameter[1], {}))
                if challenges:
                    challenges[-1].parameters[parameter[2].lower()] = _unquote(parameter[3])
            elif scheme := _SCHEME.fullmatch(text):
                challenges.append(Challenge(scheme[1], {}))
    return challenges


def answer(
    challenges: Sequence[Challenge], user: str, password: str, *, method: str, uri: str, cnonce: str
) -> str | None:
    """The value of the Authorization or Proxy-Authorization header, for the strongest of the challenges; None if this
    module has none of them. `method` and `uri` are those of the request line; `cnonce` must be random and new.
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
    challenge: dict[str, str],
    hash_hex: Callable[[bytes], str],
    user: str,
    password: str,
    method: str,
    uri: str,
    cnonce: str,
) -> str | None:
    """The answer to a Digest challenge (RFC 7616, section 3.4); None if it has no realm, nonce or qop=auth."""
    if "auth" not in re.split(r"[\s,]+", challenge.get("qop", "").lower()) or not challenge.keys() >= {
        "realm",
        "nonce",
    }:
        return None

    def hash_of(*parts: str) -> str:
        return hash_hex(":".join(parts).encode(errors="surrogateescape"))

    realm, nonce = challenge["realm"], challenge["nonce"]
    response = hash_of(hash_of(user, realm, password), nonce, "00000001", cnonce, "auth", hash_of(method, uri))
    quoted = {"username": user, "realm": realm, "nonce": nonce, "uri": uri, "response": response, "cnonce": cnonce}
    if "opaque" in challenge:
        quoted["opaque"] = challenge["opaque"]
    fields = [f"{name}={_quote(value)}" for name, value in quoted.items()]
    if "algorithm" in challenge:
        fields.append(f"algorithm={challenge['algorithm']}")
    return "Digest " + ", ".join([*fields, "qop=auth", "nc=00000001"])


def _quote(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[:1] == '"' else text
