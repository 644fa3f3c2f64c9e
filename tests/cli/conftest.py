"""Fixtures of the command line's tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from etherws.cli.operate import instances


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short name: the path of a UNIX socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="ew") as folder:
        yield Path(folder)


@pytest.fixture
def machine(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nothing runs: its folder for control sockets."""
    monkeypatch.setattr(instances, "folders", lambda: [str(short_folder)])
    return short_folder
