"""What no test runs: ``python -m tests.coverage_report [--alone | --whole] [PYTEST'S ARGUMENTS]``.

First each pure module (the list in test_imports.py) by the test file of its own name alone: to the last branch. Then
the package by every test, with the processes that the tests start: LEAST per cent of the lines and branches. Nothing
is left out of the count, and no mark in the code takes a line out. Fails below either.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.test_imports import PURE

ROOT = Path(__file__).resolve().parents[1]

#: Per cent of the branches that every test together must run.
LEAST = 95.0

#: What coverage is told. Only the default mark "pragma: no cover" would leave a line out; the empty list takes it away.
#: Workers and what they start write a file each when they end, by os._exit() too, as a daemon does.
CONFIGURATION = """
[run]
branch = true
parallel = true
source_pkgs = etherws
data_file = {folder}/data
concurrency = gevent, thread
patch = subprocess, fork, _exit, execv
sigterm = false

[report]
exclude_lines =
partial_branches =
"""


class Coverage:
    """One measurement, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "coveragerc"
        self._file.write_text(CONFIGURATION.format(folder=folder))

    def pytest(self, *arguments: str) -> int:
        """Run these tests; return pytest's status."""
        return self._run("run", "-m", "pytest", *arguments)

    def report(self) -> dict[str, Any]:
        """What was run, by file, as coverage's JSON has it."""
        report = self._folder / "report.json"
        self._run("combine", "--quiet", check=True)
        self._run("json", "--quiet", "-o", str(report), check=True)
        found: dict[str, Any] = json.loads(report.read_text())
        return found

    def _run(self, command: str, *arguments: str, check: bool = False) -> int:
        argv = [sys.executable, "-m", "coverage", command, f"--rcfile={self._file}", *arguments]
        return subprocess.run(argv, cwd=ROOT, check=check).returncode


def test_file(module: str) -> Path:
    """The test file of a module's own name."""
    folder, _, name = module.rpartition("/")
    return ROOT / "tests" / folder / f"test_{name}.py"


def alone(arguments: list[str]) -> bool:
    """Measure each pure module by its own test file; whether nothing is missing."""
    good = True
    # Every import runs the package's own etherws/__init__.py, which has no branch.
    for module in sorted(PURE - {"__init__"}):
        tests = test_file(module)
        if not tests.exists():
            print(f"{module}: no {tests.relative_to(ROOT)}", flush=True)
            good = False
            continue
        with tempfile.TemporaryDirectory(prefix="etherws-coverage-") as folder:
            coverage = Coverage(Path(folder))
            status = coverage.pytest("--quiet", "--no-header", "-p", "no:cacheprovider", str(tests), *arguments)
            file = coverage.report()["files"][f"etherws/{module}.py"]
        print(f"{module}: {rate(file):.1f} % by {tests.relative_to(ROOT)}", *missing(file), sep="\n    ", flush=True)
        good = good and status == 0 and not list(missing(file))
    return good


def whole(arguments: list[str]) -> bool:
    """Measure the package by every test; whether that is enough."""
    with tempfile.TemporaryDirectory(prefix="etherws-coverage-") as folder:
        # The tests' processes may be of another user.
        os.chmod(folder, 0o1777)
        coverage = Coverage(Path(folder))
        status = coverage.pytest(*arguments)
        report = coverage.report()
    for name, file in sorted(report["files"].items()):
        if lines := list(missing(file)):
            print(f"{name}: {rate(file):.1f} %", *lines, sep="\n    ")
    totals = report["totals"]
    branches = 100 * totals["covered_branches"] / totals["num_branches"]
    lines = 100 * totals["covered_lines"] / totals["num_statements"]
    print(f"every test: {branches:.2f} % of {totals['num_branches']} branches, {lines:.2f} % of the lines")
    return status == 0 and branches >= LEAST


def rate(file: dict[str, Any]) -> float:
    """Per cent of a file's lines and branches that were run."""
    return float(file["summary"]["percent_covered"])


def missing(file: dict[str, Any]) -> Iterator[str]:
    """The lines of a file that were not run, and the branches that were not taken from lines that were."""
    lines = file["missing_lines"]
    for line in lines:
        if line - 1 not in lines:
            last = line
            while last + 1 in lines:
                last += 1
            yield f"line {line}" if line == last else f"lines {line} to {last}"
    for source, target in file["missing_branches"]:
        if source not in lines:
            yield f"from line {source} to {'the end' if target < 0 else f'line {target}'}"


def main() -> None:
    """Both, or the one that is asked for."""
    arguments = sys.argv[1:]
    wanted = {"--alone": alone, "--whole": whole}
    chosen = [wanted[argument] for argument in arguments if argument in wanted] or [alone, whole]
    rest = [argument for argument in arguments if argument not in wanted]
    # Each, even when the one before has failed.
    results = [measure(rest) for measure in chosen]
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
