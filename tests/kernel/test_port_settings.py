"""What of a port's rules is a setting of its interface, on a real one: set, missed, undone."""

from __future__ import annotations

from etherws.kernel.link_changes import EVERYTHING
from etherws.kernel.place import Place
from etherws.kernel.port_settings import PortSettings
from etherws.kernel.rules import Rules
from tests.lab.hosts import Host
from tests.lab.lan import MovableDevice, index_of


def test_what_was_set_is_undone_where_the_interface_is(host: Host) -> None:
    host.bridge("tap0")
    index = index_of(host, "tap0")
    device, rules = MovableDevice(index), Rules(rate_down=10**7)
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
