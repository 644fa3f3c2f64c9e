"""Draws the results as SVG files: ``python bench/plots.py figures.json DIRECTORY``, or run.py with --plots.

There is a file for each of GROUPS, with a panel for each figure and a bar for each peer. The bar shows the median, and
a line on it goes from the least to the most. The background is transparent, and all colours are readable on white and
on black. The same results make the same file, byte for byte. This is the only module that imports matplotlib.
"""

# matplotlib is optional, so mypy must not need it.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: The figures of each file, by the name of the file.
GROUPS = {
    "throughput": ("tcp", "tcp-r", "tcp8"),
    "latency": ("rtt", "slow-ping", "lossy-ping"),
    "lossy": ("lossy-rate",),
    "pps": ("pps",),
    "cpu": ("cpu",),
}
#: A grey with the same contrast on white and on black; the colours of etherws, of the others, and of the limits.
INK = "#767676"
OURS, OTHERS, LIMITS = "#2f7fd6", "#c9782b", "#8f8f8f"
#: Peers that are no competitors, but show the limits of the machine.
LIMIT_NAMES = ("pump", "vxlan", "bare")
#: The pump does nothing against a full queue. A bar of seconds would make the others too short to see.
NOT_DRAWN = {("slow-ping", "pump")}
#: In inches: the width of a panel, the height of a bar, and the height of what is above and below the bars.
PANEL, BAR, FRAME = 3.6, 0.26, 0.9

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "etherws",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def draw(results: dict[str, Any], directory: Path) -> list[Path]:
    """Draw the groups for which there are figures; `results` come from Results.as_dict() in report.py.

    Makes the directory if it is missing, and returns the files. Raises OSError when it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for name, wanted in GROUPS.items():
        figures = {figure: results["figures"][figure] for figure in wanted if figure in results["figures"]}
        if figures:
            files.append(directory / f"{name}.svg")
            _draw(figures, files[-1])
    return files


def _draw(figures: dict[str, dict[str, Any]], file: Path) -> None:
    # From the top in the order of the measurement. A peer may lack one of the figures.
    peers = list(dict.fromkeys(peer for figure in figures.values() for peer in figure["peers"]))
    with rc_context(STYLE):
        sheet = Figure(figsize=(1 + PANEL * len(figures), FRAME + BAR * len(peers)), layout="tight")
        panels = sheet.subplots(1, len(figures), sharey=True, squeeze=False)[0]
        for panel, (name, figure) in zip(panels, figures.items(), strict=True):
            _panel(panel, name, figure, peers)
        sheet.savefig(file, transparent=True, metadata={"Date": None})


def _panel(panel: Axes, name: str, figure: dict[str, Any], peers: list[str]) -> None:
    measured = figure["peers"]
    drawn = [summary["max"] for peer, summary in measured.items() if (name, peer) not in NOT_DRAWN]
    longest = max(drawn, default=1.0)
    for row, peer in enumerate(peers):
        if peer not in measured:
            continue
        median, least, most = (measured[peer][key] for key in ("median", "min", "max"))
        number = f"{median:,.{_decimals(median)}f}"
        if (name, peer) in NOT_DRAWN:
            most, number = 0, f"{number}, not drawn"
        else:
            panel.barh(row, median, height=0.7, color=_colour(peer), alpha=0.8, linewidth=0)
            panel.plot((least, most), (row, row), color=INK, linewidth=1.5, marker="|", markersize=6)
        panel.text(most + longest * 0.03, row, number, va="center", fontsize=8)
    panel.set_yticks(range(len(peers)), peers)
    panel.set_ylim(len(peers) - 0.4, -0.6)
    # This leaves room for the numbers after the bars.
    panel.set_xlim(0, longest * 1.25)
    better = "more" if figure["more_is_better"] else "less"
    panel.set_title(_wrapped(figure["title"]), loc="left")
    panel.set_xlabel(f"{figure['unit']} ({better} is better)")
    panel.locator_params(axis="x", nbins=4)
    panel.xaxis.set_major_formatter("{x:,g}")
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(axis="y", length=0)


def _colour(peer: str) -> str:
    if peer in LIMIT_NAMES:
        return LIMITS
    return OURS if peer.startswith("ws") else OTHERS


def _decimals(value: float) -> int:
    """Return the decimals that make at least three digits."""
    return 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3


def _wrapped(title: str) -> str:
    """Split the title into a line for the load, and a line for what was measured."""
    return title.replace(": ", ":\n", 1)


def main(argv: Sequence[str]) -> int:
    """Draw the results of a JSON file, and print the names of the SVG files."""
    if len(argv) != 2:
        print("usage: plots.py FIGURES.json DIRECTORY", file=sys.stderr)
        return 2
    for file in draw(json.loads(Path(argv[0]).read_text()), Path(argv[1])):
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
