"""The code of releases, out of the repository's history, to run beside the checkout's.

A release adds its revision here. Their packages are those of the checkout: what is tested is the wire.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.lab.hosts import Host, Process

ROOT = Path(__file__).parents[2]

#: The revision of each release with which the checkout must work, and the version of the wire that both agree on. None
#: of this rewrite is out yet. In their place stand the last revision before the negotiation, and the first one with it.
RELEASES = {
    "a345f24b2d75fd8a9c39bf19516f5da25e45caa8": 1,
    "277d296ad45395b844a45623e61ea0e747a53147": 2,
}


class Release:
    """The code of one revision, in a folder."""

    def __init__(self, revision: str, folder: Path) -> None:
        """Skips the test where the repository does not have the revision: in a source archive or a shallow clone."""
        self._folder = folder
        git = shutil.which("git")
        if git is None:
            pytest.skip("no program git on this machine")
        done = subprocess.run([git, "-C", str(ROOT), "archive", revision, "etherws"], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no revision {revision[:7]} here: {done.stderr.decode(errors='replace').strip()}")
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")

    def etherws(self, host: Host, *arguments: str, **options: Any) -> Process:
        """Start its ``etherws``."""
        # `python -m` looks into the working directory first.
        return host.run(sys.executable, "-m", "etherws", *arguments, cwd=self._folder, **options)
