"""Check what ``make release`` built, and try it: ``python -m tests.release DIRECTORY``.

The source archive must have every file of the repository, the wheel every file of the package, and both the manual
pages and completions that ``make man`` has made. The wheel is installed into a new virtual environment outside the
checkout; its units and manual pages are found there, and ``etherws demo`` is run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Files that are for the repository alone, by how their paths begin.
ONLY_GIT = (".ci/", ".github/", ".gitignore")

#: What setuptools adds to a source archive, by how the paths begin.
ADDED = ("PKG-INFO", "setup.cfg", "etherws.egg-info/")


def tracked(*paths: str) -> set[str]:
    """The files of the repository."""
    done = subprocess.run(["git", "ls-files", "-z", *paths], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(done.stdout.split("\0")) - {""}


def made() -> set[str]:
    """The manual pages and completions, which ``make man`` has made. Exits with a message if there are none."""
    found = {path.relative_to(ROOT).as_posix() for path in (ROOT / "share").glob("**/*") if path.is_file()}
    if "share/man/man1/etherws.1" not in found or "share/man/man5/etherws.toml.5" not in found:
        sys.exit("share/ has no manual pages; run make man")
    return found


def compare(archive: Path, found: set[str], wanted: set[str]) -> None:
    """Exit with a message if the archive lacks a file, or has one that it should not have."""
    for text, names in (("lacks", wanted - found), ("should not have", found - wanted)):
        if names:
            sys.exit(f"{archive.name} {text}: {', '.join(sorted(names))}")
    print(f"{archive.name}: {len(found)} files, as in the repository")


def check_source(archive: Path) -> None:
    """The source archive against the repository."""
    with tarfile.open(archive) as tar:
        names = {member.name.partition("/")[2] for member in tar if member.isfile()}
    wanted = made() | {name for name in tracked() if not name.startswith((*ONLY_GIT, *ADDED))}
    compare(archive, {name for name in names if not name.startswith(ADDED)}, wanted)


def check_wheel(archive: Path) -> None:
    """The wheel against the package."""
    with zipfile.ZipFile(archive) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    # Files that are installed beside the package.
    names = {re.sub(r"^etherws-[^/]*\.data/data/share/etherws/", "contrib/", name) for name in names}
    names = {re.sub(r"^etherws-[^/]*\.data/data/", "", name) for name in names}
    wanted = made() | tracked("etherws", "contrib/*.service")
    if "etherws/py.typed" not in wanted:
        sys.exit("etherws/py.typed is not in the repository")
    compare(archive, names, wanted)


def try_wheel(archive: Path) -> None:
    """Install the wheel elsewhere, and run the demo from there."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder, "venv", "bin", "python")
        subprocess.run([sys.executable, "-m", "venv", Path(folder, "venv")], check=True, env=env)
        install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", archive]
        subprocess.run(install, cwd=folder, check=True, env=env)
        code = "import etherws; print(etherws.__file__)"
        done = subprocess.run([python, "-c", code], cwd=folder, check=True, env=env, capture_output=True, text=True)
        if not done.stdout.startswith(folder):
            sys.exit(f"the new environment imports another etherws: {done.stdout.strip()}")
        # What etherws init --enable has systemd take, and what man finds by the PATH.
        code = "from etherws.cli.init.units import SOURCES; print(*(path.name for path in SOURCES[0].iterdir()))"
        done = subprocess.run([python, "-c", code], cwd=folder, check=True, env=env, capture_output=True, text=True)
        if set(done.stdout.split()) != {"etherws-server@.service", "etherws-client@.service"}:
            sys.exit(f"the wheel installs other units: {done.stdout.strip()}")
        if shutil.which("man"):
            where = {**env, "PATH": f"{python.parent}:{env['PATH']}"}
            where.pop("MANPATH", None)
            for page in (("1", "etherws-server"), ("5", "etherws.toml")):
                subprocess.run(["man", "--where", *page], cwd=folder, check=True, env=where)
        subprocess.run([python.with_name("etherws"), "demo", "--seconds", "1"], cwd=folder, check=True, env=env)


def main() -> None:
    """Check the one source archive and the one wheel of a directory."""
    directory = Path(sys.argv[1]).resolve()
    (source,), (wheel,) = directory.glob("*.tar.gz"), directory.glob("*.whl")
    check_source(source)
    check_wheel(wheel)
    try_wheel(wheel)


if __name__ == "__main__":
    main()
