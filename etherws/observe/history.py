"""The last ten minutes of all sessions together, made of totals that were read one after another.

Pure. It keeps differences: what came in between two readings, and of the histograms the median and the 95th
percentile. The history of one session is the session's own. Read next: stream.py, which reads the totals.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from etherws.counters import Values

#: Seconds between two readings, and how many samples are kept: ten minutes.
STEP, SAMPLES = 5.0, 120

#: Seconds after which a reading has no sample: nobody read for longer than this, so a difference says nothing of when.
GAP_MAX = 3 * STEP

#: What each sample has, beside the drops by reason.
COLUMNS = ("sent", "received", "round_trip", "round_trip_95", "queue_delay", "queue_delay_95", "drops", "sessions")


class History:
    """The samples of the last ten minutes."""

    def __init__(self) -> None:
        self._samples: deque[tuple[Values, Counter[str]]] = deque(maxlen=SAMPLES)
        self._before: Mapping[str, Any] | None = None
        self._end = 0.0

    def add(self, now: float, totals: Mapping[str, Any]) -> None:
        """Take totals (as counters.Totals.values() has them) that were read at `now`, in seconds since 1970."""
        before, seconds = self._before, now - self._end
        self._before, self._end = totals, now
        if before is None:
            return
        if not 0 < seconds <= GAP_MAX:
            # The clock was set, or the machine slept.
            self._samples.append((dict.fromkeys(COLUMNS), Counter()))
            return
        dropped = Counter(totals["drops"]) - Counter(before["drops"])
        sample: Values = {"drops": dropped.total(), "sessions": max(0, totals["joins"] - totals["leaves"])}
        for name in ("sent", "received"):
            sample[name] = round(max(0, totals[name]["bytes"] - before[name]["bytes"]) * 8 / seconds)
        for name in ("round_trip", "queue_delay"):
            counts = [
                max(0, ours - theirs)
                for ours, theirs in zip(totals[name]["counts"], before[name]["counts"], strict=True)
            ]
            sample[name] = quantile(totals[name]["bounds"], counts, 0.5)
            sample[f"{name}_95"] = quantile(totals[name]["bounds"], counts, 0.95)
        self._samples.append((sample, dropped))

    def values(self) -> Values:
        """For JSON: "step" and "end" in seconds, a list for each of COLUMNS, oldest sample first, and "reasons": how
        many frames were dropped in these ten minutes, by reason."""
        reasons: Counter[str] = Counter()
        for _, dropped in self._samples:
            reasons.update(dropped)
        columns = {name: [sample[name] for sample, _ in self._samples] for name in COLUMNS}
        return {"step": STEP, "end": self._end, **columns, "reasons": dict(reasons)}


def quantile(bounds: Sequence[float], counts: Sequence[int], part: float) -> float | None:
    """The value that `part` of those that a histogram counted are below, evenly spread between two bounds; None if it
    counted none. `counts` are those up to each of the bounds, and of those above the last, which count as this bound.
    """
    wanted = part * sum(counts)
    if not wanted:
        return None
    below, number = 0, 0
    while below + counts[number] < wanted:
        below += counts[number]
        number += 1
    if number == len(bounds):
        return bounds[-1]
    least = bounds[number - 1] if number else 0.0
    return least + (bounds[number] - least) * (wanted - below) / counts[number]
