"""The TAP and its bridge, where somebody has prepared one or the other."""

from __future__ import annotations

import contextlib

import pytest

from etherws.kernel import interfaces
from etherws.tunnel.interface import open_tap
from tests.lab.hosts import Host
from tests.lab.lan import index_of


def test_a_persistent_tap_that_is_in_another_bridge_is_moved_with_a_warning(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.command("ip tuntap add lan0 mode tap")
    host.bridge("br9", "lan0")
    host.bridge("br0")
    with host.namespace.inside():
        for bridge, said in (("br9", 0), ("br0", 1), ("br0", 1)):
            with contextlib.closing(open_tap("lan0", index_of(host, bridge), None)) as tap:
                assert interfaces.bridge_of(tap.index) == ("br9" if bridge == "br9" else "br0")
                assert caplog.text.count("lan0 was in br9; it is in br0 now, the bridge that is named for it") == said
        # One that is made here was nowhere before.
        with contextlib.closing(open_tap("new%d", index_of(host, "br9"), None)):
            assert len(caplog.records) == 1
        assert interfaces.bridge_of(index_of(host, "br0")) == interfaces.bridge_of(999) == ""
