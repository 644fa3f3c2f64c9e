"""The figures of two sides that were measured in pairs, and the statistics of their ratios: for compare.py.

Each round gives one pair of values for each figure. The two are measured within seconds of each other, so a machine
that becomes slower hardly distorts their ratio. A ratio above 1 is always better for the second side: it is
after/before where more is better, and before/after where less is better. Needs neither root nor a network.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any

from bench.report import digits
from bench.scenarios import Figure

SIDES = ("before", "after")
#: A figure whose lower bound is below this is listed as perhaps worse.
LEAST = 0.97
#: The 0.95 quantile of Student's t by degrees of freedom, from 1 on (any table of the t-distribution).
_T95 = (
    *(6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812),
    *(1.796, 1.782, 1.771, 1.761, 1.753, 1.746, 1.740, 1.734, 1.729, 1.725),
    *(1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699, 1.697),
)


def lower_bound(ratios: list[float]) -> float | None:
    """Return the one-sided lower 95 % bound of the geometric mean ratio; None for a single ratio.

    It is Student's t over the logarithms: with these, twice as fast and half as fast are equally far from 1.
    """
    if len(ratios) < 2:
        return None
    logs = [math.log(ratio) for ratio in ratios]
    # Above 30 degrees of freedom this uses the quantile of 30, which is a little too strict.
    t = _T95[min(len(logs) - 1, len(_T95)) - 1]
    return math.exp(statistics.mean(logs) - t * statistics.stdev(logs) / math.sqrt(len(logs)))


def sign_test(differences: list[float]) -> float | None:
    """Return the two-sided probability that equal sides differ in one direction this often; None without a difference.

    It is the exact binomial test. It needs no assumption about the distribution, and zeros are left out.
    """
    signs = [difference > 0 for difference in differences if difference]
    if not signs:
        return None
    rarer = min(signs.count(True), signs.count(False))
    as_rare = sum(math.comb(len(signs), k) for k in range(rarer + 1))
    return min(1.0, 2 * as_rare / float(2 ** len(signs)))


@dataclass(frozen=True)
class Summary:
    """The statistics of one figure: medians of both sides and of the ratio, its lower bound, its least and its most."""

    before: float
    after: float
    ratio: float
    bound: float | None
    least: float
    most: float


class Pairs:
    """The values of each figure, side and round."""

    def __init__(self, figures: dict[str, Figure]) -> None:
        self._figures = figures
        # figure -> side -> round -> value
        self._values: dict[str, dict[str, dict[int, float]]] = {}

    def add(self, number: int, side: str, figures: dict[str, float]) -> None:
        """Add the figures of one side in one round."""
        for name, value in figures.items():
            self._values.setdefault(name, {each: {} for each in SIDES})[side][number] = value

    def pairs(self, name: str) -> list[tuple[float, float]]:
        """Return the two values of each round in which both sides were measured."""
        before, after = (self._values.get(name, {}).get(side, {}) for side in SIDES)
        return [(before[number], after[number]) for number in before if number in after]

    def ratios(self, name: str) -> list[float]:
        """Return the ratio of each pair; above 1 is better for the second side."""
        more = self._figures[name].more_is_better
        return [after / before if more else before / after for before, after in self.pairs(name)]

    def summary(self) -> dict[str, Summary]:
        """Return what the pairs of each figure say, in the order of the figures; those without a pair are left out."""
        found = {}
        for name in self._figures:
            if ratios := self.ratios(name):
                before, after = map(statistics.median, zip(*self.pairs(name), strict=True))
                bound, ratio = lower_bound(ratios), statistics.median(ratios)
                found[name] = Summary(before, after, ratio, bound, min(ratios), max(ratios))
        return found

    def text(self) -> str:
        """Return a table with a line for each figure, and the list of figures whose bound is below LEAST."""
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
        rows += ["", "before, after: medians. ratio: median of the ratios of the pairs; above 1, after is better."]
        rows.append("bound: one-sided lower 95 % bound of the mean ratio (Student's t over the logarithms).")
        rows.append(f"bound below {LEAST}: {', '.join(worse) or 'none'}")
        return "\n".join(rows)

    def as_dict(self) -> dict[str, Any]:
        """Return all for JSON, with the values of each pair."""
        return {
            name: {
                **asdict(self._figures[name]),
                **asdict(found),
                "ratios": self.ratios(name),
                "pairs": self.pairs(name),
            }
            for name, found in self.summary().items()
        }
