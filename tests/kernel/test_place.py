"""Where a port's interface is, told by a device that is a function: here, elsewhere, gone; and whose a table is."""

from __future__ import annotations

import logging

import pytest

from etherws.errors import DeviceError
from etherws.kernel.filter_table import table_for
from etherws.kernel.place import Place
from etherws.kernel.rules import Rules
from tests.lab.hosts import Host
from tests.lab.lan import MovableDevice, index_of, tables


@pytest.fixture
def device(host: Host) -> MovableDevice:
    """An interface of this name."""
    host.bridge("tap0")
    return MovableDevice(index_of(host, "tap0"))


def test_an_interface_is_here_away_or_gone(host: Host, device: MovableDevice, caplog: pytest.LogCaptureFixture) -> None:
    assert device.where is not None
    place, index = Place(device.where, device), device.where
    with host.namespace.inside():
        assert (place.name(), place.is_here(), place.is_away(), place.exists()) == ("tap0", True, False, True)
        for _ in range(2):
            device.where = None
            assert (place.name(), place.is_here(), place.is_away(), place.exists()) == ("", False, True, True)
            place.warn_away()
            place.warn_away()
            device.where = index
            assert place.name() == "tap0"
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
            "tap0 is in another network namespace: nothing is enforced there"
        ] * 2
        device.gone = True
        assert (place.is_away(), place.exists(), place.label) == (False, False, "tap0")
        with pytest.raises(DeviceError):
            place.name()
        # One that nobody can ask is told by its index.
        assert Place(index).exists()
        assert not Place(999).exists()
        assert Place(999).label == "interface 999"


def test_a_table_goes_unless_it_is_another_interfaces(host: Host, device: MovableDevice) -> None:
    assert device.where is not None
    place, index = Place(device.where, device), device.where

    def removed() -> bool:
        table_for("tap0", Rules(macs=1)).install()
        place.remove_table("tap0")
        return not tables(host)

    with host.namespace.inside():
        assert removed()
        # Moved away, and somebody else has its name and index at once: some kernels would filter that.
        device.where = None
        assert removed()
        # Another port of ours has the name.
        place.is_taken = lambda name: name == "tap0"
        assert not removed()
        # It was renamed, and another interface has its old name, and the table.
        host.bridge("other")
        device.where = index_of(host, "other")
        assert place.is_here()
        assert not removed()
        host.delete_link("tap0")
        assert removed()
        place.remove_table("")
        assert index != device.where
