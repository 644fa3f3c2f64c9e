"""What the two ends agreed on in the opening handshake, and what that costs.

Pure. Read next: client/upgrade.py, which has the agreement; features.py; measure.py, what is measured after it.
"""

from __future__ import annotations

from collections.abc import Iterator

from etherws import features
from etherws.check.findings import Finding, Verdict
from etherws.client.upgrade import Agreement

#: What version 1 costs (docs/performance.rst).
_COST = "one message for each frame, and no super-frames: a few times slower at high rates"


def agreed(agreement: Agreement, mtu: int | None, *, newest: int = 2) -> Iterator[Finding]:
    """What a 101 agreed on. `mtu` is that of the interface here in bytes, None if there is none yet; `newest` is the
    highest version of the wire that was offered."""
    yield _wire(agreement, newest)
    if agreement.mtu is not None:
        yield _mtu(agreement.mtu, mtu)
    if agreement.check is None:
        yield Finding(
            "measuring",
            "nothing is measured: the server answered as for a tunnel",
            Verdict.NOTE,
            "it does not know this check, or a proxy on the way drops the header Etherws-Features; update the server",
            {"check": None},
        )


def _wire(agreement: Agreement, newest: int) -> Finding:
    number = agreement.version.number
    data = {"version": number, "offered": newest, "doubt": agreement.doubt or None}
    if number == 2:
        return Finding("wire", "version 2: many frames in a message, and whole super-frames", data=data)
    if newest < 2:
        return Finding("wire", f"version 1, as --wire 1 demands: {_COST}", Verdict.NOTE, "leave out --wire 1", data)
    if agreement.doubt:
        hint = "let the proxies on the way pass Etherws-Features and Sec-WebSocket-Protocol, both ways"
        return Finding("wire", f"version 1: {agreement.doubt}. It has {_COST}", Verdict.WARNING, hint, data)
    if agreement.check:
        # It has read our list, so nobody removed that.
        hint = "start the server without --wire 1; or let the proxies on the way pass Sec-WebSocket-Protocol"
    else:
        hint = (
            "update the server, or start it without --wire 1; or let the proxies on the way pass Etherws-Features and"
            " Sec-WebSocket-Protocol"
        )
    return Finding("wire", f"version 1: {_COST}", Verdict.WARNING, hint, data)


def _mtu(theirs: int, ours: int | None) -> Finding:
    data = {"server_bytes": theirs, "bytes": ours}
    if ours is None or ours == theirs:
        same = " at both ends" if ours else " at the server; this end has no interface yet"
        return Finding("MTU", f"{theirs} bytes{same}", data=data)
    text = f"{ours} bytes here, {theirs} at the server: larger frames can be lost without an error"
    return Finding("MTU", text, Verdict.WARNING, f"give both the lower one: --mtu {min(ours, theirs)}", data)


#: What to offer beside the usual features: a session that measures, and one that is silent most of the time.
OFFER = {features.CHECK: features.check_value(features.CHECK)}
OFFER_IDLE = {features.CHECK: features.check_value(features.IDLE)}
