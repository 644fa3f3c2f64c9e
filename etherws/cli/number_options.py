"""The types of options whose values are numbers: times, and numbers within bounds.

Read next: file_options.py, the types of options that name files; options.py, the options.
"""

from __future__ import annotations

import math
from typing import Any

import click

from etherws.cli.process.waiting import FOREVER
from etherws.values import duration


class Duration(click.ParamType[float]):
    """Seconds, with or without a unit: 20, 20s, 500ms, 5m, 1h."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The duration in seconds."""
        try:
            return duration(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Wait(Duration):
    """Seconds to wait for a connection, or ``forever``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The time in seconds, math.inf for ever."""
        found = math.inf if value == FOREVER else super().convert(value, param, ctx)
        if not found:
            self.fail("the time must be above zero; leave it out to wait for ever", param, ctx)
        return found


class Within(click.ParamType[float]):
    """A number within bounds. Unlike click's own range, it does not write them as 0<=x<=65535."""

    name = "number"

    def __init__(self, bounds: click.IntRange | click.FloatRange) -> None:
        self._range = bounds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        try:
            return self._range.convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value} is not in the range {self._range.min} to {self._range.max}", param, ctx)
