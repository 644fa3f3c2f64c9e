"""One line of a file, or nothing."""

from __future__ import annotations

from pathlib import Path

from etherws.check.host.kernel_values import line, number, text


def test_values(tmp_path: Path) -> None:
    path = tmp_path / "value"
    assert (text(path), line(path), number(path)) == ("", "", None)
    path.write_bytes(b" 17 \nmore\xff")
    assert (text(path), line(path), number(path)) == (" 17 \nmore\ufffd", "17", 17)
    path.write_bytes(b"\x1b[1m\n")
    assert (line(path), number(path)) == ("?[1m", None)
    assert text(tmp_path) == ""
