"""An error of the client's as a finding: what has happened, and what to do, apart.

Pure. The client puts both into one line of its log, with the other side's own words at the end. Read next:
check/findings.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etherws.check.findings import Finding, Verdict
from etherws.errors import EtherwsError

#: What stands before the other side's own words in an error's text (client/refusals.py, client/proxies.py).
_SAID = "; it says: "


def parts(text: str) -> tuple[str, str]:
    """What has happened, with the words of the other side, and the hint; the hint is empty if there is none."""
    text, said, words = text.partition(_SAID)
    happened, _, hint = text.partition("; ")
    return f"{happened}{said}{words}", hint


def failed(
    topic: str,
    error: EtherwsError | str,
    *,
    before: str = "",
    hint: str = "",
    verdict: Verdict = Verdict.FAILED,
    data: Mapping[str, Any] | None = None,
) -> Finding:
    """The finding for an error. `before` is written before what has happened, `hint` replaces the error's own."""
    happened, own = parts(str(error))
    return Finding(topic, before + happened, verdict, hint or own, data or {})
