"""What of a port's rules is a setting of its interface: the rate of what leaves by it, and its isolation and VLANs.

Others may change all three, and the last two are lost when the interface leaves its bridge. Read next: port_filter.py,
which says what is needed; interfaces.py and port_vlans.py, which tell the kernel.
"""

from __future__ import annotations

from functools import partial

from etherws.kernel import interfaces, port_vlans
from etherws.kernel.link_changes import Touched
from etherws.kernel.place import Place
from etherws.kernel.rules import Rules


class PortSettings:
    """The settings of the interface at `place`. While that is in another network namespace, only clear() is called."""

    def __init__(self, place: Place) -> None:
        self._place = place
        #: Whether the interface's bridge is gone, and it joins when that is there again. Meanwhile there is no other
        #: port from which to isolate it.
        self.bridge_is_away = False
        #: Whether we have isolated it, or who had it before us. If not, its owner may have, and we leave that alone.
        self.isolated = False
        #: Whether it has VLANs of ours, or of who had it before us.
        self.has_vlans = False
        #: Whether it may have a rate limit of ours: of this process, or of one that had the interface before.
        self._shaped = True

    def apply(self, rules: Rules) -> None:
        """Set what the rules need. Raises DeviceError."""
        self._shape(rules.rate_down)
        self._isolate(rules.isolated)
        self._tag(rules)

    def clear(self) -> None:
        """Set nothing of ours any more. An interface that was moved has lost both. Raises DeviceError."""
        if self._place.exists() and self._place.is_here():
            self.apply(Rules())
        self._shaped = self.isolated = self.has_vlans = False

    def missing(self, rules: Rules, name: str, touched: Touched) -> str:
        """What of the rules others have changed, of what may be `touched`, for the log; empty if nothing."""
        if Touched.QUEUE in touched and rules.rate_down and not interfaces.has_rate(self._place.index, rules.rate_down):
            return f"the rate limit of {name} is gone"
        if Touched.PORT not in touched or not (rules.isolated or rules.port_vlans) or self._may_be_alone():
            return ""
        if rules.isolated and not interfaces.is_isolated(self._place.index):
            return f"{name} is isolated no more"
        wanted = rules.port_vlans
        return (
            f"{name} is not in its VLANs any more" if wanted and port_vlans.missing(self._place.index, wanted) else ""
        )

    def join(self, bridge: int, rules: Rules) -> None:
        """Put the interface into the bridge of this index, isolated and in VLANs if the rules say so. Raises
        DeviceError."""
        index, wanted = self._place.index, rules.port_vlans
        vlans = partial(port_vlans.put, vlans=wanted) if wanted else None
        interfaces.join(index, bridge, isolated=rules.isolated, vlans=vlans)
        self.has_vlans = self.has_vlans or bool(wanted)
        self.isolated = self.isolated or rules.isolated
        self.bridge_is_away = False

    def _shape(self, rate: int | None) -> None:
        if rate or self._shaped:
            self._shaped = True
            interfaces.set_rate(self._place.index, rate)
        self._shaped = bool(rate)

    def _isolate(self, on: bool) -> None:
        if (on or self.isolated) and not self._may_be_alone():
            interfaces.isolate(self._place.index, on)
        self.isolated = on

    def _tag(self, rules: Rules) -> None:
        wanted = rules.port_vlans
        if self._may_be_alone():
            return
        if wanted:
            self.has_vlans = True
            port_vlans.put(self._place.index, wanted)
        elif self.has_vlans:
            port_vlans.reset(self._place.index)
            self.has_vlans = False

    def _may_be_alone(self) -> bool:
        # Others may have put it into a bridge meanwhile.
        self.bridge_is_away = self.bridge_is_away and not interfaces.is_in_bridge(self._place.index)
        return self.bridge_is_away
