"""The files of the live page. A stand-in: there is none yet."""

from __future__ import annotations


def asset(path: str) -> tuple[str, bytes, list[tuple[str, str]]] | None:
    """The content type, the bytes and more headers of what is at this path: / or /page/NAME. None: nothing is."""
    return None
