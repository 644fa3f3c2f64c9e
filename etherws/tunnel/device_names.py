"""The names of one server's interfaces: which are in use, and which are to be tried next for a pattern such as ethws%d.

Pure bookkeeping: to try a thousand names in vain would cost more than all the rest of a new port. Others may have a
name too; then the kernel refuses it, and the next one is tried. Read next: tap_device.py, which tries them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

#: How many numbers are tried for a pattern such as ethws%d; more than the 1,023 ports of a bridge.
PATTERN_MAX = 4096


class _Numbers:
    """Those of one pattern."""

    def __init__(self) -> None:
        #: All below were tried, and are in use or in `released`, the lowest one first.
        self.next = 0
        self.released: list[int] = []


class DeviceNames:
    """The names that are in use."""

    def __init__(self) -> None:
        #: The pattern and the number of each; None for a name without a number.
        self._used: dict[str, tuple[str, int] | None] = {}
        self._patterns: dict[str, _Numbers] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._used

    def add(self, name: str, pattern: str) -> None:
        """The name is in use, for an interface that was made with this pattern."""
        prefix, percent, suffix = pattern.partition("%d")
        digits = name[len(prefix) : len(name) - len(suffix)]
        numbered = percent and name.startswith(prefix) and name.endswith(suffix) and digits.isdecimal()
        self._used[name] = (pattern, int(digits)) if numbered else None

    def discard(self, name: str) -> None:
        """The name is free again, if it was in use."""
        pattern, number = self._used.pop(name, None) or ("", 0)
        numbers = self._patterns.get(pattern)
        if numbers and number < numbers.next:
            heapq.heappush(numbers.released, number)

    def candidates(self, pattern: str) -> Iterator[str]:
        """Names that fit the pattern, in the order in which they are to be tried: each of those that others may have is
        asked for once the one before it was in vain. The kernel's own %d would never choose a persistent device that
        exists."""
        if "%d" not in pattern:
            yield pattern
            return
        numbers = self._patterns.setdefault(pattern, _Numbers())
        while numbers.released:
            if (name := _name(pattern, numbers.released[0])) not in self._used:
                yield name
            heapq.heappop(numbers.released)
        begun = numbers.next
        while numbers.next < PATTERN_MAX:
            if (name := _name(pattern, numbers.next)) not in self._used:
                yield name
            numbers.next += 1
        # Others may have let go of some since.
        numbers.next = 0
        while numbers.next < begun:
            if (name := _name(pattern, numbers.next)) not in self._used:
                yield name
            numbers.next += 1


def _name(pattern: str, number: int) -> str:
    return pattern.replace("%d", str(number))
