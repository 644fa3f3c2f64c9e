"""Fixtures of the tests in the virtual machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.units import Unit, installed, links, run


@pytest.fixture
def units() -> Iterator[tuple[Unit, Unit]]:
    """The server's and the client's, with options by which they find each other."""
    before = set(links())
    with installed() as (server, client):
        server.options(address="127.0.0.1", bridge="br0")
        client.options(uri="ws://127.0.0.1/", device="ethws1", bridge="br1", wait="forever")
        yield server, client
    # A VLAN goes with its bridge.
    while left := sorted(set(links()) - before):
        run("ip", "link", "delete", left[0])
