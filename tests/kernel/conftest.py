"""Fixtures of the tests of the kernel's rules."""

from __future__ import annotations

import pytest

from tests.lab.hosts import Host
from tests.lab.lan import make_lan


@pytest.fixture
def lan(host: Host) -> Host:
    """A bridge br0 of three ports: see make_lan()."""
    return make_lan(host)
