"""What sessions count, in the form in which it is shown: traffic, histograms, and totals that never go down.

Pure. tunnel/ fills them, server/ and client/ add them up, and observe/ reads them. A counter is a plain number of a
plain object: to count costs one addition. Read next: observe/subject.py, by which observe/ reads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

#: Values for JSON: what docs/status.rst describes.
Values: TypeAlias = dict[str, Any]

#: Upper bounds of round trips, in seconds: from one machine to a satellite's path under load.
ROUND_TRIP_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

#: Upper bounds of the time that packets wait in the backlog, in seconds. CoDel's target is 0.005 (tunnel/fq_codel.py).
QUEUE_DELAY_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(slots=True)
class Traffic:
    """What went in one direction: bytes of TCP's payload, frames that are single, and super-frames."""

    bytes: int = 0
    frames: int = 0
    super_frames: int = 0

    def add(self, other: Traffic) -> None:
        """Count what `other` has counted, too."""
        self.bytes += other.bytes
        self.frames += other.frames
        self.super_frames += other.super_frames

    def values(self) -> Values:
        """For JSON."""
        return {"bytes": self.bytes, "frames": self.frames, "super_frames": self.super_frames}


class Histogram:
    """How many values were at most as large as each bound, and larger than the bound before; the last count is of
    those above all bounds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def merge(self, counts: Iterable[int], total: float) -> None:
        """Count what another histogram with these bounds has counted."""
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, counts, strict=True)]
        self.sum += total

    def values(self) -> Values:
        """For JSON."""
        return {"bounds": list(self.bounds), "counts": list(self.counts), "sum": self.sum}


@dataclass
class Totals:
    """What all sessions of a process have counted since it began, those that have ended included."""

    sent: Traffic = field(default_factory=Traffic)
    received: Traffic = field(default_factory=Traffic)
    #: Frames that were dropped, by reason.
    drops: Counter[str] = field(default_factory=Counter)
    joins: int = 0
    leaves: int = 0
    round_trip: Histogram = field(default_factory=lambda: Histogram(ROUND_TRIP_BOUNDS))
    #: Those during which packets waited in the backlog; they are in `round_trip`, too.
    loaded_round_trip: Histogram = field(default_factory=lambda: Histogram(ROUND_TRIP_BOUNDS))
    queue_delay: Histogram = field(default_factory=lambda: Histogram(QUEUE_DELAY_BOUNDS))

    def values(self) -> Values:
        """For JSON."""
        return {
            "sent": self.sent.values(),
            "received": self.received.values(),
            "drops": dict(self.drops),
            "joins": self.joins,
            "leaves": self.leaves,
            "round_trip": self.round_trip.values(),
            "loaded_round_trip": self.loaded_round_trip.values(),
            "queue_delay": self.queue_delay.values(),
        }

    def merge(self, values: Mapping[str, Any]) -> None:
        """Count what the `values()` of another process say, too. Raises KeyError, TypeError or ValueError if they are
        malformed."""
        self.sent.add(Traffic(**values["sent"]))
        self.received.add(Traffic(**values["received"]))
        self.drops.update(dict(values["drops"]))
        self.joins += values["joins"]
        self.leaves += values["leaves"]
        for ours, name in (
            (self.round_trip, "round_trip"),
            (self.loaded_round_trip, "loaded_round_trip"),
            (self.queue_delay, "queue_delay"),
        ):
            ours.merge(values[name]["counts"], values[name]["sum"])
