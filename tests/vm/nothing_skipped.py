"""A plugin of pytest for the machine of ``make vm``, where nothing is missing: a test that skips there fails, unless
ALLOWED says why it may. Elsewhere a test of the mark ``vm_too`` may skip for what the kernel or the machine lacks.
And what tests have typed of the pages is printed at the end, for run.py to keep."""

from __future__ import annotations

import json
from collections.abc import Generator

import pytest

from tests.lab import typed

#: The tests that may skip there, each with its reason.
ALLOWED: dict[str, str] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have a test fail that skips."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.nodeid not in ALLOWED:
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing is missing: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Have a file fail that skips as a whole."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing is missing: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the record, each line by itself."""
    for record in typed.kept():
        terminalreporter.write_line(typed.MARK + json.dumps(record))
