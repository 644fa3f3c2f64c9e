"""An etherws that measures its own event loop: ``loop_turns.py etherws ARGUMENTS...``, for observe.py.

At SIGRTMIN it prints the longest turns since it was asked last. A turn is what the event loop does from one poll to the
next: whatever comes meanwhile waits for its end. Beside it are the longest times for which one greenlet went on, with
the place where it stopped. At SIGRTMAX it logs FLOOD events a second for FLOOD_SECONDS. To measure costs two
microseconds for each switch of greenlets.
"""

from __future__ import annotations

import gc
import heapq
import json
import logging
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gevent
import greenlet

from etherws.cli.commands import main as command
from etherws.events import OTHER, event

#: How many of the longest are kept, and the shortest that are worth it, in seconds of processor time.
KEPT, SHORTEST = 12, 0.0005
#: Frames of a place that are shown.
DEPTH = 5
#: Events of the flood in a second, and how long it lasts. A batch of them is logged in each millisecond.
FLOOD, FLOOD_SECONDS, BATCH = 10_000, 2.0, 10


class Longest:
    """The longest times since the last take(), and how many there were."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, float, str]] = []
        self._count = 0

    def add(self, busy: float, took: float, where: str) -> None:
        """Add a time: `busy` is the processor's, `took` the clock's, both in seconds."""
        self._count += 1
        (heapq.heappush if len(self._heap) < KEPT else heapq.heappushpop)(self._heap, (busy, took, where))

    def worth(self, busy: float) -> bool:
        """Whether it would be kept."""
        return busy > SHORTEST and (len(self._heap) < KEPT or busy > self._heap[0][0])

    def count(self) -> None:
        """Count one that is not worth more."""
        self._count += 1

    def take(self) -> dict[str, Any]:
        """For JSON: "count", and in "longest" the milliseconds of both clocks and the place, the longest first."""
        found = [[1e3 * busy, 1e3 * took, where] for busy, took, where in sorted(self._heap, reverse=True)]
        count, self._count, self._heap = self._count, 0, []
        return {"count": count, "longest": found}


class Turns:
    """Measures this thread's event loop from now on."""

    def __init__(self) -> None:
        self._loop, self._greenlets, self._collections = Longest(), Longest(), Longest()
        self._began = self._collecting = self._switched = (time.thread_time(), time.monotonic())
        # The longest of this turn, for its place.
        self._most = (0.0, "")
        loop: Any = gevent.get_hub().loop
        # From the first that libev does after a poll to the last before the next one.
        self._watchers = (loop.check(), loop.prepare())
        for watcher, priority, callback in zip(self._watchers, (2, -2), (self._begin, self._end), strict=True):
            watcher.priority = priority
            watcher.start(callback)
        greenlet.settrace(self._switch)
        gc.callbacks.append(self._collect)

    def take(self) -> dict[str, Any]:
        """What was measured since the last time."""
        return {
            "loop": self._loop.take(),
            "greenlets": self._greenlets.take(),
            "collections": self._collections.take(),
        }

    def _begin(self) -> None:
        self._began, self._most = _now(), (0.0, "")

    def _end(self) -> None:
        busy, took = _since(self._began)
        if self._loop.worth(busy):
            self._loop.add(busy, took, f"{1e3 * self._most[0]:.1f} of it: {self._most[1]}")
        else:
            self._loop.count()

    def _switch(self, _: str, ends: tuple[Any, Any]) -> None:
        busy, took = _since(self._switched)
        if busy > SHORTEST and busy > self._most[0]:
            place = _place(ends[0])
            self._most = (busy, place)
            if self._greenlets.worth(busy):
                self._greenlets.add(busy, took, place)
        else:
            self._greenlets.count()
        self._switched = _now()

    def _collect(self, phase: str, about: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = _now()
        elif self._collections.worth(_since(self._collecting)[0]):
            self._collections.add(
                *_since(self._collecting), f"generation {about['generation']}, {about['collected']} collected"
            )
        else:
            self._collections.count()


def _now() -> tuple[float, float]:
    return time.thread_time(), time.monotonic()


def _since(then: tuple[float, float]) -> tuple[float, float]:
    return time.thread_time() - then[0], time.monotonic() - then[1]


def _place(which: Any) -> str:
    """Where a greenlet waits, the innermost frame first; or what it was, if it has ended."""
    frame: FrameType | None = which.gr_frame
    if frame is None:
        return f"the end of {which!r}"
    calls = [
        f"{Path(each.filename).parent.name}/{Path(each.filename).stem}.{each.name}:{each.lineno}"
        for each in reversed(traceback.extract_stack(frame))
        if "gevent" not in each.filename and "contextlib" not in each.filename
    ]
    return " < ".join(calls[:DEPTH]) or repr(which)


def _flood() -> None:
    """Log events as fast as FLOOD says."""
    log = logging.getLogger("etherws.bench")
    for number in range(int(FLOOD * FLOOD_SECONDS)):
        log.info("event %d of a flood", number, extra=event(OTHER, number=number))
        if number % BATCH == BATCH - 1:
            gevent.sleep(BATCH / FLOOD)


def main() -> None:
    """Run the etherws command, and measure."""
    turns: list[Turns] = []

    def tell() -> None:
        # The hub of the thread that serves may be another one than at the start.
        if not turns:
            turns.append(Turns())
        print("turns", json.dumps(turns[0].take()), flush=True)

    assert threading.current_thread() is threading.main_thread()
    gevent.signal_handler(signal.SIGRTMIN, tell)
    gevent.signal_handler(signal.SIGRTMAX, lambda: gevent.spawn(_flood))
    command(sys.argv[2:], prog_name="etherws")


if __name__ == "__main__":
    main()
