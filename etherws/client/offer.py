"""What a client offers one server in its upgrade request: the list of features, and when there is none.

Pure. What the server takes of it is read by upgrade.py. Read next: attempt.py; etherws/features.py; docs/wire.rst, "The
negotiation".
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from etherws import features
from etherws.client.upgrade import Agreement
from etherws.features import Features, Membership
from etherws.settings import DeviceSettings
from etherws.tunnel.offloads import Offload
from etherws.tunnel.padding import CLIENT, Grants

#: Seconds in which nothing is offered to a server whose answer left a doubt. A connection that is lost again and again
#: then costs one handshake each time, and not two; a server that was upgraded is soon asked again.
OFFER_AGAIN = 60.0


class Offer:
    """What one server is offered."""

    def __init__(
        self,
        settings: DeviceSettings,
        also: Features,
        clock: Callable[[], float] = monotonic,
        *,
        takes_uso: Callable[[], bool] = bool,
    ) -> None:
        """`also` are features beside those that every client has: a check's. `clock` gives seconds. `takes_uso` tells
        whether this kernel takes UDP super-frames."""
        self._settings, self._also, self._clock, self._takes_uso = settings, also, clock, takes_uso
        # Whether UDP super-frames were agreed on with the last connection that was not a link's further one.
        self._uso = False
        # From when on to offer version 2.
        self._again = 0.0
        self._padding = Grants(CLIENT, clock=clock)
        # From when on to offer padding.
        self._padding_from = 0.0

    def features(self, mtu: int | None, membership: Membership | None = None) -> dict[str, str] | None:
        """The features to offer, None for nothing. `mtu` is the TAP's in bytes."""
        if self._settings.wire < 2 or self._clock() < self._again:
            return dict(self._also) or None
        offer = {features.VERSION_2: "", **({features.MTU: f"={mtu}"} if mtu else {})}
        # All members of a link have the same: they share an interface. A check has none.
        further = membership is not None and not membership.new
        if self._uso if further else mtu and not self._also and self._takes_uso():
            offer[features.USO] = ""
        # A check has frames of its own.
        if self._settings.padding and not self._also and self._has_padding(membership):
            offer[features.PADDING] = ""
        if membership:
            offer[features.LINK] = features.link_value(membership)
        return {**offer, **self._also}

    def agreed(self, agreed: Agreement, membership: Membership | None = None) -> None:
        """Remember what the answer to that offer says."""
        if agreed.doubt:
            self._again = self._clock() + OFFER_AGAIN
        if not membership or membership.new:
            self._uso = agreed.version.offload is Offload.TCP_UDP
        if agreed.version.padding:
            self._padding.take(_number(membership))

    def joins(self, agreed: Agreement, membership: Membership, given: Membership) -> bool:
        """Whether the answer, which gives that, takes a further member into its link: as this one, with what the first
        one got."""
        return given.member == membership.member and (agreed.version.offload is Offload.TCP_UDP) is self._uso

    def continues(self) -> None:
        """The process before this one was connected, and is followed again and again perhaps: its connections count as
        if they had had padding now."""
        self._padding_from = self._clock() + CLIENT.seconds

    def _has_padding(self, membership: Membership | None) -> bool:
        return self._clock() >= self._padding_from and self._padding.has(_number(membership))


def _number(membership: Membership | None) -> str:
    """Which connection of its link it is, as a source of grants."""
    return str(membership.member if membership else 0)
