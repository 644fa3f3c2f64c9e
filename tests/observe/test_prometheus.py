"""What others make of the metrics: the documents, the dashboard, the alerts; and promtool, which Debian has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from etherws.observe import client_metrics, metrics
from etherws.observe.metric_families import DROPS, ERRORS, OTHER, STATES
from etherws.observe.subject import Subject
from tests.lab.subjects import FakeClient, FakeServer

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "metrics.rst"
RULES = ROOT / "contrib" / "prometheus" / "etherws.rules.yml"
DASHBOARD = ROOT / "contrib" / "grafana" / "etherws.json"
RULES_TEST = Path(__file__).with_name("rules_test.yml")

#: A name of a metric, and what histograms have behind it.
NAME, SUFFIXES = re.compile(r"\b(?:etherws|process)_[a-z_]+\b"), ("_bucket", "_sum", "_count")


def subjects() -> Iterator[Subject]:
    """A server and a client that have a value for each metric, together."""
    yield FakeServer()
    client = FakeClient()
    client.lose("lost")
    yield client


def text_of(subject: Subject) -> str:
    """All of its metrics."""
    return b"".join(metrics.metrics(subject, "", clients=True, events={})[1]).decode()


def types() -> dict[str, str]:
    """Each metric that there is, with its type."""
    lines = [line.split() for subject in subjects() for line in text_of(subject).splitlines()]
    return {line[2]: line[3] for line in lines if line[:2] == ["#", "TYPE"]}


def labels() -> dict[str, set[str]]:
    """The labels of each metric, without those of all single clients."""
    found: dict[str, set[str]] = {name: set() for name in types()}
    for subject in subjects():
        for name, text in re.findall(r"^(\w+)\{(.*)\} ", text_of(subject), re.MULTILINE):
            if name in found:
                found[name] |= set(re.findall(r"(\w+)=\"", text)) - set(client_metrics.LABELS)
    return found


def test_the_document_lists_each_metric_with_its_type_and_labels() -> None:
    rows = re.findall(
        r"^``(etherws_\w+)`` +(info|gauge|counter|histogram) +([a-z, ]*?)  +\S.*\n((?: {40,}\S.*\n)*)",
        DOCUMENT.read_text(),
        re.MULTILINE,
    )
    found = {name: "gauge" if kind == "info" else kind for name, kind, _, _ in rows}
    assert found == {name: kind for name, kind in types().items() if name.startswith("etherws_")}
    for name, _, words, more in rows:
        written = set(re.findall("[a-z]+", words))
        if name == "etherws_info":
            written |= {"role", "name"} & set(re.findall("[a-z]+", more))
        assert written == labels()[name], name


def test_the_document_lists_the_values_of_labels() -> None:
    text = DOCUMENT.read_text()
    for value in (*DROPS, *ERRORS, OTHER, *STATES["server"], *STATES["client"]):
        assert f"``{value}``" in text, value
    assert str(client_metrics.CLIENTS_MAX) == "2000"
    assert "2,000 clients" in text


@pytest.mark.parametrize("path", [RULES, DASHBOARD, RULES_TEST, DOCUMENT], ids=lambda path: path.name)
def test_each_metric_that_is_named_exists(path: Path) -> None:
    known = set(types())
    named = set(NAME.findall(path.read_text()))
    assert len(named) > 10
    for name in named:
        base = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
        assert name in known or base in known, name


def test_the_dashboard_shows_each_metric_of_ours_and_its_panels_do_not_overlap() -> None:
    dashboard: Any = json.loads(DASHBOARD.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        for target in panel.get("targets", ()):
            assert 'job="$job", instance=~"$instance"' in target["expr"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_each_alert_is_tested_and_says_what_and_what_to_do() -> None:
    alerts = re.findall(r"- alert: (\w+)\n", RULES.read_text())
    assert len(alerts) > 8
    assert set(re.findall(r"alertname: (\w+)", RULES_TEST.read_text())) == set(alerts)
    assert len(re.findall(r"\n +summary: \S", RULES.read_text())) == len(alerts)
    assert len(re.findall(r"\n +description: \S", RULES.read_text())) == len(alerts)


@pytest.fixture
def promtool() -> str:
    """The program."""
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is missing; Debian has it in the package prometheus")
    return path


@pytest.mark.packages
def test_promtool_finds_nothing_wrong_with_the_metrics(promtool: str) -> None:
    for subject in subjects():
        done = subprocess.run(
            [promtool, "check", "metrics"], input=text_of(subject), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.packages
def test_promtool_takes_the_rules_and_they_fire_on_what_they_should(promtool: str, tmp_path: Path) -> None:
    for path in (RULES, RULES_TEST):
        shutil.copy(path, tmp_path)
    subprocess.run([promtool, "check", "rules", RULES.name], cwd=tmp_path, check=True)
    subprocess.run([promtool, "test", "rules", RULES_TEST.name], cwd=tmp_path, check=True)
