"""What the doctor says: a finding for each thing that it has looked at.

Pure. Each part of the doctor is a function that yields findings as it goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Verdict(Enum):
    """How good that is. Only FAILED makes the exit status 1."""

    OK = "ok"
    #: Worth to know; nothing is to be done.
    NOTE = "note"
    #: It works, but not as well as it could, or not for long.
    WARNING = "warning"
    FAILED = "failed"
    #: It could not be looked at.
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at (a word or two), what was found there, how good that is, and what to do about it.
    `data` has the same for programs: values for JSON, by names that stay."""

    topic: str
    found: str
    verdict: Verdict = Verdict.OK
    hint: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "topic": self.topic,
            "found": self.found,
            "verdict": self.verdict.value,
            "hint": self.hint,
            "data": dict(self.data),
        }


def status(findings: list[Finding]) -> int:
    """The exit status of the command."""
    return int(any(finding.verdict is Verdict.FAILED for finding in findings))
