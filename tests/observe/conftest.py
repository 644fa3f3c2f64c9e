"""Fixtures: a folder whose name is short enough for a socket, and doors that are open."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.doors import Doors, doors


@pytest.fixture
def folder(control_folder: str) -> Path:
    """For one test."""
    return Path(tempfile.mkdtemp(dir=control_folder))


@pytest.fixture
def opened(folder: Path) -> Iterator[Doors]:
    """Both doors of a server that is none."""
    with doors(folder) as found:
        yield found
