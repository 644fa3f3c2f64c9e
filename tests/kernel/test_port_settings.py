"""What of a port's rules is a setting of its interface, on a real one: set, missed, undone."""

from __future__ import annotations

from etherws.errors import DeviceLost
from etherws.kernel.link_changes import EVERYTHING
from etherws.kernel.place import Place
from etherws.kernel.port_settings import PortSettings
from etherws.kernel.rules import Rules
from tests.lab.hosts import Host
from tests.lab.lan import index_of


class Device:
    """It is where the test says: an index here, None for another network namespace, or gone."""

    def __init__(self, where: int | None) -> None:
        self.name, self.where, self.gone = "tap0", where, False

    def locate(self) -> int | None:
        if self.gone:
            raise DeviceLost("tap0 is gone")
        return self.where


def test_what_was_set_is_undone_where_the_interface_is(host: Host) -> None:
    host.bridge("tap0")
    index = index_of(host, "tap0")
    device, rules = Device(index), Rules(rate_down=10**7)
    settings = PortSettings(Place(index, device))
    with host.namespace.inside():
        settings.apply(rules)
        assert "tbf" in str(qdiscs(host))
        assert settings.missing(rules, "tap0", EVERYTHING) == ""
        settings.clear()
        assert "tbf" not in str(qdiscs(host))
        assert settings.missing(rules, "tap0", EVERYTHING) == "the rate limit of tap0 is gone"
        # Elsewhere or gone there is nothing to undo.
        device.where = None
        settings.clear()
        device.gone = True
        settings.clear()


def qdiscs(host: Host) -> list[str]:
    with host.netlink() as route:
        return [str(qdisc.get_attr("TCA_KIND")) for qdisc in route.get_qdiscs(index=index_of(host, "tap0"))]
