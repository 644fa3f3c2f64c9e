"""The common part of the benchmarks' command lines: options and their checks, progress, and results as JSON.

command() is the whole command line of a benchmark that prints one JSON object. run.py and compare.py have their own,
and use the types of options and progress().
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from bench.lab import Lab
from bench.process import BenchError

#: An option, its default value (False: a flag), and its meaning.
Option = tuple[str, bool | int | float | str, str]
#: A function that measures with the options of the command line, and returns figures for JSON.
Measurement = Callable[[argparse.Namespace], dict[str, Any]]


def in_lab(measure: Callable[[Lab, argparse.Namespace], dict[str, Any]]) -> Measurement:
    """Return the measurement with a Lab that is made for it."""

    def measure_in_lab(options: argparse.Namespace) -> dict[str, Any]:
        with Lab() as lab:
            return measure(lab, options)

    return measure_in_lab


def command(measure: Measurement, text: str, options: Sequence[Option]) -> int:
    """Read the command line, measure, print the figures as JSON, and return the exit status."""
    parser = argparse.ArgumentParser(description=f"{text} Needs root.")
    for option, default, what in options:
        if default is False:
            parser.add_argument(option, action="store_true", help=what)
        else:
            kind = type(default)
            metavar, help_text = "LIST" if kind is str else "N", f"{what}; default: %(default)s"
            parser.add_argument(option, type=kind, default=default, metavar=metavar, help=help_text)
    arguments = parser.parse_args()
    try:
        print(json.dumps(measure(arguments), indent=2))
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    return 0


def cannot_run(*absent: str) -> bool:
    """Return whether we are not root or a program is absent; print the reason on standard error."""
    if os.geteuid() != 0:
        print("bench: needs root, for network namespaces and TAPs; try sudo", file=sys.stderr)
        return True
    if absent:
        print(f"bench: not installed: {', '.join(absent)}", file=sys.stderr)
    return bool(absent)


def names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """An argparse type: names separated by commas; returns them in the order of the known names."""

    def parse(text: str) -> list[str]:
        wanted = {name.strip() for name in text.split(",")}
        if unknown := sorted(wanted.difference(known)):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return [name for name in known if name in wanted]

    return parse


def up_to(most: int) -> Callable[[str], int]:
    """An argparse type: a whole number from 1 to most, so that every run is bounded."""

    def parse(text: str) -> int:
        if not (text.isdecimal() and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {most}")
        return int(text)

    return parse


def duration(text: str) -> float:
    """An argparse type: seconds, more than 0 and at most 60."""
    with suppress(ValueError):
        if 0 < (seconds := float(text)) <= 60:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, more than 0 and at most 60")


def progress(done: int, steps: int, text: str) -> None:
    """Show one line on standard error; on a terminal it replaces the line before."""
    start, end = ("\r\033[K", "") if sys.stderr.isatty() else ("", "\n")
    print(f"{start}[{done:3}/{steps}] {text}", end=end, file=sys.stderr, flush=True)
