"""The figures of two sides that were measured in pairs, and what their ratios say: for compare.py.

Each round gives one pair of values for each figure. The two were measured within seconds of each other, so a machine
that gets slower distorts their ratio little. A ratio above 1 is always better for the second side: it is after/before
where more is better, and before/after where less is better. Measures nothing, and knows neither root nor network.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from bench.report import digits
from bench.scenarios import Figure

SIDES = ("before", "after")
#: The lower bound of a ratio below which a figure is named as worse.
LEAST = 0.97
#: The 0.95 quantile of Student's t by degrees of freedom, from 1 on (any table of the t-distribution).
_T95 = (
    *(6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812),
    *(1.796, 1.782, 1.771, 1.761, 1.753, 1.746, 1.740, 1.734, 1.729, 1.725),
    *(1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699, 1.697),
)


def lower_bound(ratios: list[float]) -> float | None:
    """The one-sided lower 95 % bound of the mean ratio, by Student's t over the logarithms; None for a single ratio.

    The logarithm makes twice as fast and half as fast the same distance from 1. The mean is the geometric one.
    """
    if len(ratios) < 2:
        return None
    logs = [math.log(ratio) for ratio in ratios]
    # Above 30 degrees of freedom the quantile of 30 is used, which is a little too strict.
    t = _T95[min(len(logs) - 1, len(_T95)) - 1]
    return math.exp(statistics.mean(logs) - t * statistics.stdev(logs) / math.sqrt(len(logs)))


@dataclass(frozen=True)
class Summary:
    """What the pairs of one figure say."""

    before: float
    after: float
    ratio: float
    bound: float | None
    least: float
    most: float


class Pairs:
    """The values of every figure, side and round."""

    def __init__(self, figures: dict[str, Figure]) -> None:
        self._figures = figures
        # figure -> side -> round -> value
        self._values: dict[str, dict[str, dict[int, float]]] = {}

    def add(self, number: int, side: str, figures: dict[str, float]) -> None:
        """Keep the figures that one side had in one round."""
        for name, value in figures.items():
            self._values.setdefault(name, {each: {} for each in SIDES})[side][number] = value

    def ratios(self, name: str) -> list[float]:
        """The ratio of each round in which both sides were measured; above 1 is better for the second side."""
        before, after = (self._values[name][side] for side in SIDES)
        pairs = [(before[number], after[number]) for number in before if number in after]
        more = self._figures[name].more_is_better
        return [second / first if more else first / second for first, second in pairs]

    def summary(self) -> dict[str, Summary]:
        """Each figure that has a pair, in the order of the figures: medians, and the least and the most ratio."""
        found = {}
        for name in self._figures:
            if name in self._values and (ratios := self.ratios(name)):
                before, after = (statistics.median(self._values[name][side].values()) for side in SIDES)
                bound, ratio = lower_bound(ratios), statistics.median(ratios)
                found[name] = Summary(before, after, ratio, bound, min(ratios), max(ratios))
        return found

    def text(self) -> str:
        """A table with a line for each figure, and the figures whose bound is below LEAST."""
        rows = [f"{'':22}{'':>9}{'before':>11}{'after':>11}{'ratio':>9}{'bound':>9}   spread of the ratios"]
        worse = []
        for name, found in self.summary().items():
            bound = "" if found.bound is None else f"{found.bound:.3f}"
            rows.append(
                f"{name:22}{self._figures[name].unit:>9}{digits(found.before):>11}{digits(found.after):>11}"
                f"{found.ratio:>9.3f}{bound:>9}   {found.least:.3f} to {found.most:.3f}"
            )
            if found.bound is not None and found.bound < LEAST:
                worse.append(name)
        rows += ["", "before, after: medians; ratio: median of the pairs' ratios, above 1 is better for after;"]
        rows.append("bound: the one-sided lower 95 % bound of the mean ratio (Student's t over logarithms)")
        rows.append(f"bound below {LEAST}: {', '.join(worse) or 'none'}")
        return "\n".join(rows)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON: with the values of each round."""
        summaries = self.summary()
        return {
            name: {
                "title": self._figures[name].title,
                "unit": self._figures[name].unit,
                "more_is_better": self._figures[name].more_is_better,
                "ratio": summaries[name].ratio,
                "bound": summaries[name].bound,
                "ratios": self.ratios(name),
                **{side: list(self._values[name][side].values()) for side in SIDES},
            }
            for name in summaries
        }
