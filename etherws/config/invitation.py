"""The line that ``etherws init server`` prints and ``etherws init client`` takes: all that a client needs to join.

Pure. It is ``etherws-invitation:VERSION:BODY:CHECK``. BODY is JSON in base64 (RFC 4648, section 5); CHECK is of all
before it, so a line that was cut is noticed. It has a token: whoever has the line can join. No error shows any of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from etherws.errors import InvitationError

#: How each line begins, and the version that this makes and reads.
PREFIX, VERSION = "etherws-invitation", 1

#: Characters of a line: some hundred are usual.
LINE_MAX = 8192

#: Seconds that a line can be used. It is a secret that lies in somebody's mailbox: later a new one is needed.
LIFETIME = 7 * 86400

#: What a set-up may be called: it is the name of a file, and of a unit's instance.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

#: A line: its version, its body, and the 11 characters of its check.
_WHOLE = re.compile(rf"{PREFIX}:[0-9]{{1,8}}:[A-Za-z0-9_-]*:[A-Za-z0-9_-]{{11}}")

_URI = re.compile(r"wss://[^@]{1,1000}")
_TOKEN = re.compile(r"[!-~]{8,512}")
_PIN = re.compile(r"(?:sha256//[A-Za-z0-9+/]{43}=)?")


@dataclass(frozen=True, repr=False)
class Invitation:
    """`uri` is the server's, and `pin` that of its key, empty if a client verifies the certificate by the system's
    authorities. `token` is the secret. `name` is what the server's set-up is called, `client` how the server knows the
    client. `made` is when, in seconds since 1970."""

    uri: str
    token: str
    pin: str
    name: str
    client: str
    made: int

    def line(self) -> str:
        """The line."""
        body = json.dumps(asdict(self), separators=(",", ":")).encode()
        text = f"{PREFIX}:{VERSION}:{_encoded(body)}"
        return f"{text}:{_check(text)}"


def parse(text: str, now: float) -> Invitation:
    """The invitation in what somebody has pasted; `now` is the time. Blanks, line ends and > do not count: programs
    that send text break and quote long lines. Nor does what stands before or behind it: quotes, the rest of a mail, or
    the line once more. Raises InvitationError."""
    line = "".join(text.replace(">", " ").split())
    again = "copy all of the line that etherws init server printed"
    if not line:
        raise InvitationError(f"there is no invitation; {again}")
    if PREFIX not in line or len(line) > LINE_MAX:
        raise InvitationError(f"this is no invitation, which begins with {PREFIX}:; {again}")
    found = _WHOLE.search(line)
    line = found[0] if found else line[line.index(PREFIX) :]
    parts = line.split(":")
    version = parts[1] if len(parts) > 1 else ""
    if version.isdecimal() and len(version) < 9 and int(version) != VERSION:
        age = "a later" if int(version) > VERSION else "an earlier"
        raise InvitationError(
            f"the invitation is of {age} form ({int(version)}; this etherws reads {VERSION}); use the same version of"
            " etherws on both sides"
        )
    if len(parts) != 4 or parts[3] != _check(line.rpartition(":")[0]):
        raise InvitationError(f"the invitation was cut or changed on its way; {again}")
    return _checked(_body(parts[2]), now)


def _body(text: str) -> dict[str, object]:
    """Who makes a line with the right check can write anything into it."""
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def _checked(body: dict[str, object], now: float) -> Invitation:
    """Raises InvitationError."""
    kinds = (("uri", _URI), ("token", _TOKEN), ("pin", _PIN), ("name", NAME), ("client", re.compile("[^\0]{1,512}")))
    for key, pattern in kinds:
        value = body.get(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise InvitationError(f"the invitation has no {key} that can be used; make a new one on the server")
    made = body.get("made")
    if not isinstance(made, int) or not 0 <= made < 1 << 33:
        raise InvitationError("the invitation does not say when it was made; make a new one on the server")
    text = {key: str(body[key]) for key, _ in kinds}
    found = Invitation(text["uri"], text["token"], text["pin"], text["name"], text["client"], made)
    if now - made > LIFETIME:
        date = f"{datetime.fromtimestamp(made, timezone.utc):%Y-%m-%d}"
        raise InvitationError(
            f"the invitation is of {date}, and holds for {LIFETIME // 86400} days; make a new one on the server:"
            f" etherws init server {found.name} --renew --client NAME. Or is this machine's clock wrong?"
        )
    return found


def _check(text: str) -> str:
    """Eight bytes of SHA-256: against accidents. Whoever wants to can make another line."""
    return _encoded(hashlib.sha256(text.encode()).digest()[:8])


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
