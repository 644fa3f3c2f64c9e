"""contrib/apt-programs, where it can install nothing: what it says is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "contrib/apt-programs"


@pytest.mark.parametrize(
    ("user", "said"),
    [
        (0, "no apt-get here: install what these packages of Debian have first: python3-venv squid\n"),
        (1000, "not root: install these packages first: python3-venv squid\n"),
    ],
)
def test_what_is_missing_is_said_and_why_it_is_not_installed(tmp_path: Path, user: int, said: str) -> None:
    program = tmp_path / "id"
    program.write_text(f"#!/bin/sh\necho {user}\n")
    program.chmod(0o755)
    line = ["/bin/sh", str(SCRIPT), "venv:python3-venv", "id:coreutils", "/nowhere/squid:squid"]
    done = subprocess.run(line, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
