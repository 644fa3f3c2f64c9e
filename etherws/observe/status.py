"""The whole status as JSON, in pieces: a server may have thousands of sessions, and others' frames come meanwhile.

What the fields mean is in docs/status.rst. Read next: subject.py, where the values come from; application.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from etherws.counters import Values
from etherws.observe.subject import Subject


def status(subject: Subject) -> Iterator[bytes]:
    """The status of a server or a client, piece by piece: the overview, each session, each port that is parked."""
    # The overview is an object; the lists follow in it.
    yield encode(subject.overview())[:-1]
    yield b', "sessions": ['
    yield from listed(subject.sessions())
    yield b'], "parked": ['
    yield from listed(subject.parked())
    yield b"]}\n"


def encode(values: Values) -> bytes:
    """Values as JSON, of ASCII characters only: so no terminal that shows it is told anything by a peer's words."""
    return json.dumps(values, default=str).encode()


def listed(each: Iterable[Values]) -> Iterator[bytes]:
    """Values as what is between the brackets of a JSON list, one piece each."""
    for number, values in enumerate(each):
        yield (b",\n" if number else b"\n") + encode(values)
