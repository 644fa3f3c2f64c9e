"""Draws the results as SVG files: ``python bench/plots.py FIGURES.json... DIRECTORY``, or run.py with --plots.

There is a file for each of GROUPS, with a panel for each figure and a bar for each peer. The bar shows the median, and
a line on it goes from the least to the most. Of the results of many.py there is a file for each of GROWTH, with a line
for each number of workers; of those of bad_paths.py there is one with rate and ping over time. The background is
transparent. All colours are readable on white and on black and for the colour blind. The same results make the same
file, byte for byte. This is the only module that imports matplotlib.
"""

# matplotlib is optional, so mypy must not need it.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.report import label

#: The figures of each file, by the name of the file.
GROUPS = {
    "choice": ("tcp", "slow-ping", "lossy-rate"),
    "throughput": ("tcp", "tcp-r", "tcp8"),
    "latency": ("rtt", "slow-ping", "lossy-ping"),
    "lossy": ("lossy-rate",),
    "pps": ("pps",),
    "cpu": ("cpu",),
}
#: The same for many.py.
GROWTH = {
    "many-idle": ("connect", "memory", "idle"),
    "many-busy": ("up", "ping", "broadcast"),
    "many-links": ("tcp8", "lossy-rate", "lossy-ping"),
}
#: A grey with the same contrast on white and on black; the colours of etherws, of the others, and of the limits.
INK = "#767676"
OURS, OTHERS, LIMITS = "#2f7fd6", "#c9782b", "#8f8f8f"
#: What the colours of bars mean.
KINDS = {"etherws": OURS, "others": OTHERS, "limits of the machine": LIMITS}
#: Peers that are no competitors, but show the limits of the machine.
LIMIT_NAMES = ("pump", "vxlan", "bare")
#: In these files are only the peers between which users choose: not the limits, and etherws with its defaults.
CHOICES, NO_CHOICE = ("choice",), (*LIMIT_NAMES, "ws-v1", "wss-v1")
#: The paths of bad_paths.py whose rate and ping are drawn over time.
COURSES = ("lossy", "rates", "slow")
#: The line of each peer over time: colour and style, so that no colour needs to be told from another.
LINE_STYLES = {
    "ws": (OURS, "-"),
    "wss": (OURS, "--"),
    "openvpn-udp": (OTHERS, "-"),
    "openvpn-tcp": (OTHERS, "--"),
    "openvpn-tcp-bbr": (OTHERS, ":"),
    "bare": (LIMITS, "-."),
}
#: The pump does nothing against a full queue. A bar of seconds would make the others too short to see.
NOT_DRAWN = {("slow-ping", "pump")}
#: In inches: the height of a panel with lines.
LINES = 2.6
#: In inches: the width of a panel, the height of a bar, and the height of what is above and below the bars.
PANEL, BAR, FRAME = 3.6, 0.26, 1.15

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
            _draw(figures, files[-1], NO_CHOICE if name in CHOICES else ())
    return files


def draw_growth(results: dict[str, Any], directory: Path) -> list[Path]:
    """As draw(), for the results of many.py."""
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for name, wanted in GROWTH.items():
        if figures := [results["figures"][figure] for figure in wanted if figure in results["figures"]]:
            files.append(directory / f"{name}.svg")
            with rc_context(STYLE):
                sheet = Figure(figsize=(PANEL * len(figures), LINES), layout="tight")
                panels = sheet.subplots(1, len(figures), squeeze=False)[0]
                for panel, figure in zip(panels, figures, strict=True):
                    _growth(panel, figure)
                sheet.savefig(files[-1], transparent=True, metadata={"Date": None})
    return files


def _growth(panel: Axes, figure: dict[str, Any]) -> None:
    for (workers, values), colour in zip(figure["workers"].items(), (OURS, OTHERS, LIMITS), strict=False):
        label = f"{workers} workers" if workers != "1" else "one worker"
        numbers = [int(number) for number in values]
        panel.plot(numbers, list(values.values()), color=colour, marker="o", markersize=4, label=label)
    panel.set_xscale("log", base=2 if figure["grows"] == "connections" else 10)
    panel.set_xticks(numbers, [f"{number:,}" for number in numbers])
    panel.minorticks_off()
    panel.set_ylim(0)
    panel.set_title(_wrapped(figure["title"]), loc="left")
    panel.set_xlabel(figure["grows"])
    panel.set_ylabel(figure["unit"])
    panel.spines[["top", "right"]].set_visible(False)
    if len(figure["workers"]) > 1:
        panel.legend(frameon=False)


def draw_courses(results: dict[str, Any], directory: Path) -> list[Path]:
    """As draw(), for the results of bad_paths.py: of each peer and path the measurement with the median rate."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [path for path in COURSES if any(course["path"] == path for course in results["courses"])]
    if not paths:
        return []
    with rc_context(STYLE):
        sheet = Figure(figsize=(PANEL * len(paths), 2 * LINES), layout="constrained")
        panels = sheet.subplots(2, len(paths), squeeze=False, sharex="col")
        for column, path in enumerate(paths):
            found: dict[str, list[dict[str, Any]]] = {}
            for course in sorted(results["courses"], key=lambda course: statistics.fmean(course["rates"])):
                if course["path"] == path:
                    found.setdefault(course["peer"], []).append(course)
            courses = {peer: those[(len(those) - 1) // 2] for peer, those in found.items()}
            _course(panels[0][column], panels[1][column], courses, results["sample"])
        panels[0][0].set_ylabel("received, Mbit/s")
        panels[1][0].set_ylabel("ping, ms")
        lines = panels[1][0].get_lines()
        sheet.legend(handles=lines, loc="outside upper left", ncols=len(lines), frameon=False)
        sheet.savefig(directory / "over-time.svg", transparent=True, metadata={"Date": None})
    return [directory / "over-time.svg"]


def _course(above: Axes, below: Axes, courses: dict[str, Any], sample: float) -> None:
    """Draw the rate of each peer over time, and its pings below that."""
    for peer, course in sorted(courses.items(), key=lambda item: [*LINE_STYLES, item[0]].index(item[0])):
        colour, style = LINE_STYLES.get(peer, (INK, ":"))
        # The congestion control outside of the tunnel, where there is TCP.
        name = label(peer) if course["outside"] in ("", "UDP", "-") else f"{label(peer)}, {course['outside']}"
        look: dict[str, Any] = {"color": colour, "linestyle": style, "linewidth": 1.2, "label": name}
        above.plot([(number + 1) * sample for number in range(len(course["rates"]))], course["rates"], **look)
        below.plot(*zip(*course["pings"], strict=True), **look)
        above.set_title(course["title"], loc="left")
    above.set_ylim(0)
    below.set_yscale("log")
    below.yaxis.set_major_formatter("{x:,g}")
    below.set_xlabel("s after the upload began")
    for panel in (above, below):
        panel.spines[["top", "right"]].set_visible(False)


def _draw(figures: dict[str, dict[str, Any]], file: Path, left_out: Sequence[str]) -> None:
    # From the top in the order of the measurement. A peer may lack one of the figures.
    peers = list(dict.fromkeys(peer for figure in figures.values() for peer in figure["peers"] if peer not in left_out))
    if not peers:
        return
    with rc_context(STYLE):
        sheet = Figure(figsize=(1 + PANEL * len(figures), FRAME + BAR * len(peers)), layout="constrained")
        panels = sheet.subplots(1, len(figures), sharey=True, squeeze=False)[0]
        for panel, (name, figure) in zip(panels, figures.items(), strict=True):
            _panel(panel, name, figure, peers)
        kinds = {colour: name for name, colour in KINDS.items() if colour in map(_colour, peers)}
        patches = [Patch(color=colour, alpha=0.8, label=name) for colour, name in kinds.items()]
        sheet.legend(handles=patches, loc="outside upper left", ncols=len(patches), frameon=False)
        sheet.savefig(file, transparent=True, metadata={"Date": None})


def _panel(panel: Axes, name: str, figure: dict[str, Any], peers: list[str]) -> None:
    measured = figure["peers"]
    drawn = [measured[peer]["max"] for peer in peers if peer in measured and (name, peer) not in NOT_DRAWN]
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
    panel.set_yticks(range(len(peers)), [label(peer) for peer in peers])
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
    """Draw the results of JSON files, and print the names of the SVG files. Figures of several files of run.py join."""
    if len(argv) < 2:
        print("usage: plots.py FIGURES.json... DIRECTORY", file=sys.stderr)
        return 2
    figures: dict[str, Any] = {}
    files = list[Path]()
    for name in argv[:-1]:
        results = json.loads(Path(name).read_text())
        figures |= results.get("figures", {})
        if "courses" in results:
            files += draw_courses(results, Path(argv[-1]))
    grows = any("grows" in figure for figure in figures.values())
    for file in [*files, *(draw_growth if grows else draw)({"figures": figures}, Path(argv[-1]))]:
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
