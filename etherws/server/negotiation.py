"""The server's side of the negotiation: which version of the wire to speak, and what the 101 says about it.

Pure: decides by the request's headers, and answers nothing itself. A client that offers nothing of ours is answered as
RFC 6455 has it. docs/wire.rst is the specification. Read next: etherws/features.py; client/upgrade.py, the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from etherws import features
from etherws.features import Features, Membership
from etherws.server import handshake
from etherws.tunnel.wire import Version1, Version2


@dataclass(frozen=True)
class Agreement:
    """What the two ends agree on: the version of the wire; the headers of the 101 that say so; the MTU of the client's
    interface in bytes, if it told it; in `doubt` why the client, which offers version 2, does not get it; and the names
    of the features that this end has answered with."""

    version: Version1 | Version2
    headers: list[tuple[str, str]] = field(default_factory=list)
    mtu: int | None = None
    doubt: str = ""
    features: tuple[str, ...] = ()


def check_wanted(environ: Mapping[str, Any]) -> str | None:
    """Which kind of check a request asks for, features.CHECK or features.IDLE; None if it asks for a tunnel."""
    return features.check_of(_listed(environ) or {})


def link_wanted(environ: Mapping[str, Any], newest: int) -> Membership | None:
    """Which connection of a link a request asks for; None if it asks for none, or gets version 1 by `newest`."""
    theirs = _listed(environ)
    if newest < 2 or theirs is None or Version2.name not in handshake.subprotocols(environ):
        return None
    return features.link_of(theirs)


def negotiate(
    environ: Mapping[str, Any],
    newest: int,
    bearer: str | None,
    mtu: int | None,
    check: str | None = None,
    *,
    full: bool = False,
    link: Membership | None = None,
    uso: bool = False,
    padding: Callable[[], bool] = lambda: False,
) -> Agreement:
    """Answer an upgrade request that handshake.accept() has accepted.

    `newest` is the highest version allowed. `bearer` is the subprotocol that carries the client's token, if there is
    one. `mtu` is that of the client's port in bytes, if it is known. `check` is the kind of check that the client gets
    in place of a tunnel; `full` is whether a tunnel would get no port. `link` is what it gets of what link_wanted() has
    found. `uso` is whether this kernel takes UDP super-frames. `padding` is asked once, of a client that offers it,
    whether it gets it.
    """
    offered = handshake.subprotocols(environ)
    text = environ.get("HTTP_ETHERWS_FEATURES")
    theirs = _listed(environ)
    told = {features.CHECK: features.check_value(check, full=full)} if check else {}
    if newest >= 2 and Version2.name in offered:
        if theirs is not None and features.VERSION_2 in theirs:
            agreed = {features.USO: uso and features.USO in theirs}
            agreed[features.PADDING] = features.PADDING in theirs and padding()
            return _version_2(environ, theirs, mtu, told, link, agreed)
        doubt = _doubt(text, theirs)
    else:
        doubt = ""
    # A browser closes the connection if the 101 names a subprotocol that it did not offer, or none although it offered
    # some.
    chosen = Version1.name if Version1.name in offered else bearer
    headers = [("Sec-WebSocket-Protocol", chosen)] if chosen else []
    if told:
        if mtu is not None:
            told[features.MTU] = f"={mtu}"
        headers.append((features.HEADER, features.answer(handshake.key(environ), told)))
    return Agreement(Version1(), headers, features.mtu_of(theirs or {}) if told else None, doubt)


def _listed(environ: Mapping[str, Any]) -> dict[str, str] | None:
    """The client's list; None if there is none, or a malformed one."""
    text = environ.get("HTTP_ETHERWS_FEATURES")
    return features.parse(text.strip(" \t")) if text is not None else None


def _version_2(
    environ: Mapping[str, Any],
    theirs: Features,
    mtu: int | None,
    told: Features,
    link: Membership | None,
    agreed: Mapping[str, bool],
) -> Agreement:
    ours = {features.VERSION_2: "", **told}
    if (features.MTU in theirs or told) and mtu is not None:
        ours[features.MTU] = f"={mtu}"
    ours |= {name: "" for name, there in agreed.items() if there}
    if link:
        ours[features.LINK] = features.link_value(Membership(link.member, link.of))
    headers = [
        ("Sec-WebSocket-Protocol", Version2.name),
        (features.HEADER, features.answer(handshake.key(environ), ours)),
    ]
    version = Version2(uso=agreed[features.USO], padding=agreed[features.PADDING])
    return Agreement(version, headers, features.mtu_of(theirs), features=tuple(ours))


def _doubt(text: str | None, theirs: Features | None) -> str:
    if text is None:
        return f"without the header {features.HEADER}: a proxy on the way removed it, or the client is older"
    if theirs is None:
        return f"but its header {features.HEADER} is malformed; a proxy on the way may have changed it"
    return f"but its header {features.HEADER} does not list {features.VERSION_2}"
