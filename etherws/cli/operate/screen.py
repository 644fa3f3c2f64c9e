"""A terminal whose whole screen is shown anew, again and again, without flicker; and what it was before comes back.

Sources: ECMA-48; xterm's control sequences, ``ctlseqs``, for the second screen. Read next: watching.py, which shows a
status on it.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import NoReturn, TextIO

#: To the second screen, which leaves the first one as it is, with the cursor hidden; and back.
BEGIN, END = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"

#: To the first line; what is left of a line, and what is left of the screen, becomes blank.
HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"

#: The exit status of a program that SIGTERM has ended, as a shell has it.
TERMINATED = 128 + signal.SIGTERM


def columns(output: TextIO) -> int | None:
    """How many columns the terminal has that this is printed to; None if it is none."""
    return shutil.get_terminal_size().columns if output.isatty() else None


class Screen:
    """The screen, from ``with`` to its end. `output` is a terminal."""

    def __init__(self, output: TextIO) -> None:
        self._output = output

    def __enter__(self) -> Screen:
        signal.signal(signal.SIGTERM, _terminate)
        self._write(BEGIN)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._write(END)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines, or as many as there is room for."""
        rows = max(1, shutil.get_terminal_size().lines)
        if len(lines) > rows:
            lines = [*lines[: rows - 1], f"... {len(lines) - rows + 1:,} more lines; etherws status shows them all"]
        # One write, so that the terminal never shows half of it. The last line has no end: that would scroll.
        self._write(HOME + "\r\n".join(line + REST_OF_LINE for line in lines) + REST_OF_SCREEN)

    def _write(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    # The screen comes back on the way out.
    raise SystemExit(TERMINATED)
