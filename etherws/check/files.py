"""A file of rules: can it be used, and what applies to whom?

Read next: findings.py; access/policy.py, which reads it.
"""

from __future__ import annotations

from collections.abc import Iterator

from etherws.access import policy
from etherws.check.findings import Finding
from etherws.errors import printable


def file(path: str) -> Iterator[Finding]:
    """What is in the policy file `path`. Raises SettingsError if it cannot be used."""
    loaded = policy.load(path)
    for name, profile in loaded.clients.items():
        yield Finding(printable(name), profile.summary())
    yield Finding(f"everyone{' else' if loaded.clients else ''}", loaded.default.summary())
