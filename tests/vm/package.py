"""The .deb of this checkout, as ``make deb`` builds it on a bare Debian: for the tests of the package.

It is built anew when what it is made of changes. How it is kept: tests/lab/disks.py. Read next: contrib/deb/build,
which builds it; tests/packaging/test_deb.py and tests/vm/test_deb.py, which install it.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

from tests.lab import debian, disks

#: What it is made of.
_SOURCES = (
    *("etherws", "contrib", "docs/manual.py", "docs/requirements.txt", "setup.py", "pyproject.toml"),
    *("requirements.txt", "README.rst", "CHANGELOG.rst", "LICENSE", "Makefile"),
)

#: How many packages are kept, of 9 MB each.
KEPT = 4

#: The folder of the checkout in which it is in the machine of ``make vm``, and where ``make deb`` writes it.
FOLDER = "dist"


def copy_package(target: Path) -> None:
    """Make the folder `target`, with the .deb in it. Needs root, and raises OSError and SubprocessError, if it is to be
    built."""
    with disks.kept("deb", _key(), KEPT, _build) as folder:
        shutil.copytree(folder, target)


def _build(folder: Path) -> None:
    """Fill `folder`/disk."""
    root, begun = folder / "root", time.monotonic()
    debian.bootstrap(root)
    debian.copy_checkout(root / debian.INSIDE[1:], changes=True)
    debian.install(root, "apt-get install -y -q --no-install-recommends make python3-venv", "make deb")
    (root / debian.INSIDE[1:] / FOLDER).rename(folder / "disk")
    print(f"building the .deb took {time.monotonic() - begun:.0f} s", flush=True)


def _key() -> str:
    found = hashlib.sha256()
    for top in _SOURCES:
        path = debian.CHECKOUT / top
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                found.update(str(file.relative_to(debian.CHECKOUT)).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:16]
