"""Fixtures of the command line's tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short name: the path of a UNIX socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="ew") as folder:
        yield Path(folder)
